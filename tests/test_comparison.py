import pandas as pd
import pytest
from PIL import Image

import headstart
from headstart import HeadstartError
from headstart.recipe import Recipe


def test_four_ways_in_one_table_and_one_picture(photos, tmp_path, capsys):
    few = {"scratch": {"epochs": 2}, "frozen": {"example_epochs": "3"}, "tuned": {"example_epochs": 3, "epochs": 1}}
    few["headstart"] = {"epochs": 1, "unfreeze": 1}
    table = headstart.compare(photos, tmp_path / "c", overrides=few, image_size=32, num_views=1)
    assert table["arm"].tolist() == [
        "from scratch",
        "frozen, new head",
        "frozen, then fine-tuned",
        "Headstart's default",
    ]
    assert table["epochs"].tolist() == [2, 3, 4, 1]
    assert table["parameters"].tolist() == [3_374_851, 3_843, 1_013_635, 1_013_635]
    assert table["test_accuracy"].iloc[3] == 1.0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "c" / "compare.csv", keep_default_na=False), table)
    assert (tmp_path / "c" / "compare.md").read_text() in capsys.readouterr().out
    with Image.open(tmp_path / "c" / "compare.png") as image:
        assert min(image.size) > 400
    tuned = Recipe.read(tmp_path / "c" / "tuned" / "recipe.toml")
    assert (tuned.optimiser, tuned.learning_rate, tuned.schedule, tuned.head) == ("adam", 1e-4, "constant", "example")
    assert (tuned.batch_size, tuned.keep, tuned.resize_policy, tuned.augmentation) == (64, "last", "squash", "example")
    # All arms are split alike.
    splits = [pd.read_csv(tmp_path / "c" / arm / "catalog.csv") for arm in ("scratch", "headstart")]
    pd.testing.assert_frame_equal(*splits)


def test_a_time_limit_is_told_in_the_table(photos, tmp_path):
    table = headstart.compare(photos, tmp_path / "c", time_limit=1e-3, image_size=32, num_views=1)
    assert table["note"].iloc[0] == "stopped after 1 of 40 epochs: --time-limit"
    assert table["note"].iloc[1] == ""


def test_an_unknown_arm_is_refused(photos, tmp_path):
    with pytest.raises(HeadstartError, match="warm: no such arm; expected scratch, frozen, tuned, headstart"):
        headstart.compare(photos, tmp_path / "c", overrides={"warm": {}})
