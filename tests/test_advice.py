from pathlib import Path

import pandas as pd

from headstart.advice import advice
from headstart.photos.catalog import Catalog
from headstart.recipe import Recipe
from making import make_photo


def catalog(root: Path, size=(40, 30), count=4) -> Catalog:
    for number in range(count):
        make_photo(number, 0, size).save(root / f"{number}.png")
    (root / "broken.png").write_bytes(b"not a photo")
    paths = [f"{number}.png" for number in range(count)] + ["broken.png"]
    return Catalog(root, pd.DataFrame({"path": paths, "label": "a", "split": "train", "digest": ""}), ["a"])


def test_the_default_goes_against_nothing(tmp_path):
    assert list(advice(Recipe.make(photos="x"), catalog(tmp_path, (300, 260)), 224)) == []


def test_each_choice_against_the_example_is_told(tmp_path):
    recipe = Recipe.make(photos="x", backbone="b7", optimiser="rmsprop", train_batch_norm=True, batch_size=128)
    said = " ".join(advice(recipe, catalog(tmp_path), 224))
    for start in (
        "BatchNorm trains",
        "RMSprop",
        "batches of 128",
        "b7 is large for 5 ",
        "224 pix",
    ):
        assert start in said
    # From scratch BatchNorm has to train, and a frozen network takes no steps.
    assert list(advice(Recipe.make(photos="x", weights="none"), catalog(tmp_path, (300, 260)), 224)) == []
    frozen = Recipe.make(photos="x", unfreeze=0, optimiser="rmsprop")
    assert list(advice(frozen, catalog(tmp_path, (300, 260)), 224)) == []
