"""Label errors: planted in real photos, they are found."""

import shutil

import numpy as np
import pandas as pd
import pytest

import headstart
from headstart.evaluation.label_errors import FOLDS, dealt_into_folds
from headstart.training.embedding import Photo


def test_folds_hold_every_class_evenly_and_copies_together():
    photos = [Photo(f"{number}.jpg", f"digest {number}") for number in range(60)]
    photos += [Photo("copy.jpg", "digest 7")]
    labels = np.array([number % 2 for number in range(60)] + [0])
    folds = dealt_into_folds(photos, labels)
    assert folds[7] == folds[60]
    for label in (0, 1):
        assert np.bincount(folds[:60][labels[:60] == label], minlength=FOLDS).tolist() == [10, 10, 10]


def plant(source, target, share: float = 0.05) -> set[str]:
    """Copy a dataset with a share of its photos moved to another class; return where they went."""
    shutil.copytree(source, target)
    paths = sorted(path for path in target.rglob("*") if path.is_file())
    draw = np.random.default_rng(0)
    moved = set()
    for number in draw.choice(len(paths), round(share * len(paths)), replace=False):
        path = paths[number]
        others = sorted(folder for folder in path.parent.parent.iterdir() if folder != path.parent)
        goal = others[draw.integers(len(others))] / f"moved-{number}{path.suffix}"
        path.rename(goal)
        moved.add(goal.relative_to(target).as_posix())
    return moved


@pytest.mark.shared
@pytest.mark.parametrize("name", ["dogs20", "grocery"])
def test_most_planted_errors_are_at_the_head_of_the_list(shared, tmp_path, name):
    moved = plant(shared / name, tmp_path / name)
    run = headstart.train(tmp_path / name, tmp_path / "run", unfreeze=0, image_size=160, quiet=True)
    issues = pd.read_csv(run.folder / "label_issues.csv")
    assert issues["score"].is_monotonic_increasing
    head = set(issues["path"].head(round(0.07 * run.metrics["label_issues"]["photos"])))
    assert len(moved & head) >= 0.8 * len(moved)
