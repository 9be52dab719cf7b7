from types import SimpleNamespace

import numpy as np
import pandas as pd

from headstart.training.data import LEARNING, TrainingData

COUNTS = {"ant": (100, 20, 7), "bee": (30, 6, 2), "cow": (5, 1, 1)}


def data() -> TrainingData:
    rows = [
        (f"{name}/{split}-{number}", f"{name}-{split}-{number}", name, split)
        for name, counts in COUNTS.items()
        for split, count in zip(("train", "validation", "test"), counts, strict=True)
        for number in range(count)
    ]
    photos = pd.DataFrame(rows, columns=["path", "digest", "label", "split"])
    catalog = SimpleNamespace(class_names=list(COUNTS), digest="d", photos=photos)
    return TrainingData(catalog, SimpleNamespace(preprocessing=SimpleNamespace(image_size=64)))


def test_a_part_is_an_equal_share_of_each_class_and_ten_training_photos_at_least():
    whole = data()
    part = whole.part(5)
    assert np.bincount(part.labels["train"]).tolist() == [20, 10, 5]
    assert np.bincount(part.labels["validation"]).tolist() == [4, 2, 1]
    assert part.photos["test"] == whole.photos["test"]
    assert len(whole.rows_of_part(5)) == len(part.photos["train"]) == 35
    for split in ("train", "validation", LEARNING):
        assert [photo.name.split("/")[0] for photo in part.photos[split]] == [
            part.class_names[label] for label in part.labels[split]
        ]
    assert part.photos[LEARNING] == part.photos["train"] + part.photos["validation"]
    assert [whole.photos["validation"][row] for row in part.validation_rows] == part.photos["validation"]
    # Not the first ones alone, which may have been taken one after the other.
    assert part.photos["train"][1].name == "ant/train-5"


def test_a_part_knows_all_photos_and_all_photos_are_no_part():
    whole = data()
    part = whole.part(2)
    assert part.whole is whole and whole.whole is whole and whole.part(1) is whole
    assert part.at(None) is part and len(whole.photos["train"]) == 135
    assert whole.validation_rows.tolist() == list(range(27))
