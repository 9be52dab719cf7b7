import pytest

from headstart import HeadstartError
from headstart.recipe import Recipe


def test_a_recipe_survives_toml(tmp_path):
    recipe = Recipe.make(photos="/photos", backbone="lite1", image_size=200, learning_rate=1e-3, seed=None)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert Recipe.read(tmp_path / "recipe.toml") == recipe
    assert recipe.seed == 0 and recipe.image_size == 200


def test_what_has_no_value_is_left_out_of_toml():
    assert "image_size" not in Recipe.make(photos="p").to_toml()


def test_overrides_win(tmp_path):
    (tmp_path / "recipe.toml").write_text(Recipe.make(photos="p", epochs=3).to_toml())
    assert Recipe.read(tmp_path / "recipe.toml", epochs=5, seed=None).epochs == 5


def test_every_fault_is_named_at_once():
    with pytest.raises(HeadstartError) as caught:
        Recipe.make(photos="p", epochs=0, engine="gpu", batch_sise=3)
    text = str(caught.value)
    assert "--epochs 0: expected greater than or equal to 1" in text
    assert "--engine gpu: expected 'auto', 'openvino' or 'torch'" in text
    assert "batch_sise: no such choice; expected one of photos, labels, check" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"photos = ", "is not TOML"), (b"\xff\xfe", "not UTF-8 text"), (b"seed = 1", "names no photos")],
)
def test_files_that_are_not_recipes_are_refused(tmp_path, content, message):
    (tmp_path / "recipe.toml").write_bytes(content)
    with pytest.raises(HeadstartError, match=message):
        Recipe.read(tmp_path / "recipe.toml")


def test_differences_are_told():
    ours, theirs = Recipe.make(photos="p", seed=1), Recipe.make(photos="p", seed=2)
    assert ours.differences(theirs) == ["seed 2 there, 1 here"]
    assert ours.differences(ours) == []
