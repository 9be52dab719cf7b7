"""Label errors: planted in real photos, they are found."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import headstart
from headstart.evaluation.label_errors import FOLDS, dealt_into_folds, find_label_issues
from headstart.photos.drawing import Photo
from headstart.training.store import Shelf, row_key


def test_folds_hold_every_class_evenly_and_copies_together():
    photos = [Photo(f"{number}.jpg", f"digest {number}") for number in range(60)]
    photos += [Photo("copy.jpg", "digest 7")]
    labels = np.array([number % 2 for number in range(60)] + [0])
    folds = dealt_into_folds(photos, labels)
    assert folds[7] == folds[60]
    for label in (0, 1):
        assert np.bincount(folds[:60][labels[:60] == label], minlength=FOLDS).tolist() == [10, 10, 10]


def made_data(folder, hard: int):
    """Stored features that tell two classes apart but for some photos.

    Sixty photos for training and twenty each for validation and test, some of each split hard for a probe.
    """
    draw = np.random.default_rng(0)
    labels = np.arange(100) % 2
    values = draw.normal(0, 0.1, (100, 8)).astype(np.float32)
    values[:, 0] += 4 * labels - 2
    for first in (0, 60, 80):
        values[first : first + hard, 0] *= -1  # on the side of the other class
    photos = [Photo(str(number), f"digest {number}") for number in range(100)]
    shelf = Shelf(folder, {}, (8,))
    with shelf.writer() as writer:
        writer.append([row_key(photo.digest, "0") for photo in photos], values)

    def features(wanted, views):
        return shelf.rows([row_key(photo.digest, str(view)) for view in views for photo in wanted])

    bounds = {"train": slice(0, 60), "validation": slice(60, 80), "test": slice(80, 100)}
    return SimpleNamespace(
        photos={split: photos[part] for split, part in bounds.items()},
        labels={split: labels[part] for split, part in bounds.items()},
        class_names=["ant", "bee"],
        embedder=SimpleNamespace(features=features),
    )


def certain(labels):
    return (0.02 + 0.96 * np.eye(2)[labels]).astype(np.float32)


def test_a_better_network_judges_the_photos_whose_labels_it_has_not_learnt(tmp_path):
    data, weights = made_data(tmp_path, hard=4), np.ones(2, np.float32)
    table, alone = find_label_issues(data, 0.03, weights)
    assert alone["opinion"] is None and alone["suspects"] >= 10
    assert {str(number) for first in (0, 60, 80) for number in range(first, first + 4)} == set(table["path"])
    unlearnt = np.concatenate([data.labels["validation"], data.labels["test"]])
    unlearnt[39] = 1 - unlearnt[39]  # the one label there that the network contradicts
    table, found = find_label_issues(data, 0.03, weights, certain(unlearnt))
    assert set(table["path"]) == {"0", "1", "2", "3", "99"}
    assert found["suspects"] < alone["suspects"] and found["listed"] == 5
    opinion = found["opinion"]
    assert (opinion["photos"], opinion["probe_accuracy"], opinion["network_accuracy"]) == (40, 0.8, 0.975)
    assert opinion["doubted"] == opinion["confirmed"] > 5
    assert 0 < opinion["training"] <= 4


def test_a_network_that_is_no_better_is_not_asked(tmp_path):
    data, weights = made_data(tmp_path, hard=2), np.ones(2, np.float32)
    unlearnt = np.concatenate([data.labels["validation"], data.labels["test"]])
    unlearnt[:4] = 1 - unlearnt[:4]
    table, found = find_label_issues(data, 0.03, weights, certain(unlearnt))
    alone, _ = find_label_issues(data, 0.03, weights)
    assert found["opinion"] is None and table.equals(alone)


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
