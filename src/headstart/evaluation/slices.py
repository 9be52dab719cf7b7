"""Accuracy by slices: where a classifier is weak though its mean looks well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from headstart.evaluation.metrics import wilson_interval

# Fewer photos say nothing.
LEAST_PHOTOS = 10
_MOST_FOLDERS = 12
_THIRDS = {
    "brightness": ("darkest third", "middle third", "brightest third"),
    "sharpness": ("blurriest third", "middle third", "sharpest third"),
    "size": ("smallest third", "middle third", "largest third"),
}


def accuracy_by_slice(predictions: pd.DataFrame, facts: pd.DataFrame | None, class_depth: int | None) -> list[Any]:
    """Measure accuracy by brightness, sharpness, size and source folder.

    Args:
        predictions: columns path and correct.
        facts: columns path, brightness, sharpness, width and height; None where photos were not looked at.
        class_depth: how many folders stand above a class's folder; None where a table gave the labels.

    Returns:
        JSON values: a list of fact, slice, photos, accuracy and accuracy_interval. Slices with less than 10 photos are
        left out, and so are facts in which the photos do not differ.
    """
    slices: list[dict[str, Any]] = []
    if facts is not None:
        table = predictions[["path", "correct"]].merge(facts, on="path")
        table["size"] = np.sqrt(table["width"].astype(float) * table["height"])
        for fact, names in _THIRDS.items():
            slices += _thirds(table.dropna(subset=[fact]), fact, names)
    folders = predictions["path"].map(lambda path: _source_folder(path, class_depth))
    if 1 < folders.nunique() <= _MOST_FOLDERS:
        slices += _measured("folder", predictions["correct"].groupby(folders))
    return slices


def _thirds(table: pd.DataFrame, fact: str, names: tuple[str, str, str]) -> Iterator[dict[str, Any]]:
    low, high = table[fact].quantile([1 / 3, 2 / 3]) if len(table) else (0.0, 0.0)
    if low < high:
        third = (table[fact] > low).astype(int) + (table[fact] > high)
        yield from _measured(fact, table["correct"].groupby(third.map(dict(enumerate(names)))), names)


def _measured(fact: str, groups: Any, order: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    found = {name: (int(rows.sum()), len(rows)) for name, rows in groups}
    for name in order or sorted(found):
        right, photos = found.get(name, (0, 0))
        if photos >= LEAST_PHOTOS:
            interval = list(wilson_interval(right, photos))
            measured = {"photos": photos, "accuracy": right / photos, "accuracy_interval": interval}
            yield {"fact": fact, "slice": str(name), **measured}


def _source_folder(path: str, class_depth: int | None) -> str:
    """Return the folder below the class's own, or, of a table's photos, the one that they lie in."""
    folders = PurePosixPath(path).parent.parts
    return "/".join(folders if class_depth is None else folders[class_depth + 1 :]) or "."
