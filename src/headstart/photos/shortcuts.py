"""Shortcuts: classes that the way their photos were taken or saved gives away, whatever they show.

A classifier learns such a thing first, is right on every test photo that has it too, and fails where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from headstart.photos.findings import SEVERE, WARNING, Finding

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Balanced accuracy of "this class or another" from one fact; 0.5 is chance.
LEAST_ACCURACY = 0.8
SURE_ACCURACY = 0.95
# Of photos saved alike, the size in bytes also tells how much detail they show, which is no shortcut.
LEAST_OF_FILE_SIZE = 0.9
# The lower end of its interval must be beyond this: enough photos stand behind it.
LEAST_LOWER_END = 0.55
LEAST_PHOTOS = 8
_ERROR_RATE = 0.05
_FOLDS, _MOST_BINS, _LEAST_IN_BIN = 5, 32, 5
_SMOOTHING = 0.5


@dataclass(frozen=True)
class Fact:
    """Something that a file tells without its picture, cut into bins; `said` describes a class's part of it.

    `in_picture`: whether a network can see it in the pixels that it gets, unlike a date. `least` is the balanced
    accuracy from which it is told.
    """

    name: str
    bins: Ints
    said: Callable[[npt.NDArray[np.bool_]], str]
    in_picture: bool = True
    least: float = LEAST_ACCURACY


def shortcut_findings(facts: pd.DataFrame) -> Iterator[Finding]:
    """Name the classes that one fact alone tells from the others, each with the fact that tells most.

    A photo is held to be of the class when its bin (a size, a camera, a thirty-second part of the dates) is more
    frequent in the class than in the rest, learnt on four fifths of the photos and tried on the last, in turn. A class
    is named when the balanced accuracy of that is at least the fact's `least`, and when the lower end of its interval
    (Wilson's, with all classes and facts tried allowed for) is above `LEAST_LOWER_END`.

    Args:
        facts: the columns of `PhotoFacts`, label and digest.
    """
    facts = facts[~facts["digest"].duplicated()].reset_index(drop=True)
    names, labels = np.unique(facts["label"].to_numpy(str), return_inverse=True)
    if len(names) < 2:
        return
    counts = np.bincount(labels)
    known = list(_facts_that_differ(facts))
    folds = _folds(labels)
    z = -float(ndtri(_ERROR_RATE / max(1, len(names) * len(known))))
    measured = [_accuracies(fact.bins, labels, folds, z) for fact in known]
    for number in np.flatnonzero(counts >= LEAST_PHOTOS):
        told = [
            (accuracies[number], fact)
            for fact, (accuracies, lower) in zip(known, measured, strict=True)
            if accuracies[number] >= fact.least and lower[number] > LEAST_LOWER_END
        ]
        if told:
            yield _finding(str(names[number]), labels == number, told)


def _finding(name: str, of_class: npt.NDArray[np.bool_], told: list[tuple[float, Fact]]) -> Finding:
    told.sort(key=lambda pair: -pair[0])
    accuracy, fact = told[0]
    sure = any(value >= SURE_ACCURACY and other.in_picture for value, other in told)
    also = "".join(f"; {other.name} {value:.2f}" for value, other in told[1:3])
    detail = (
        f"{fact.name} alone tells it from the other classes with balanced accuracy {accuracy:.2f} (0.50 is chance): "
        f"{fact.said(of_class)}{also}"
    )
    return Finding(name, "shortcut", detail, SEVERE if sure else WARNING)


def _facts_that_differ(facts: pd.DataFrame) -> Iterator[Fact]:
    width, height = facts["width"].to_numpy(float), facts["height"].to_numpy(float)
    resolution = [f"{w} x {h} pixels" for w, h in zip(facts["width"], facts["height"], strict=True)]
    if len(set(resolution)) <= _MOST_BINS:
        sizes = _named("resolution", resolution)
    else:
        sizes = _measured("resolution", width * height, lambda pixels: f"{pixels / 1e6:.3g} megapixels")
    candidates = [
        sizes,
        _measured("width over height", np.round(width / height, 2), lambda aspect: f"{aspect:.2f}"),
        _named("colour", ["grey" if grey else "in colour" for grey in facts["grey"]]),
        _named("file format", facts["file_format"].tolist()),
        replace(_named("camera", [name or "no camera named" for name in facts["camera"]]), in_picture=False),
        replace(_measured("date", facts["taken"].to_numpy(float), _date_text), in_picture=False),
        replace(
            _measured("file size", facts["file_size"].to_numpy(float), _size_text),
            in_picture=False,
            least=LEAST_OF_FILE_SIZE,
        ),
    ]
    yield from (fact for fact in candidates if fact.bins.max() > 0)


def _size_text(size: float) -> str:
    return f"{size / 1000:.3g} kB"


def _date_text(days: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(days=days)).strftime("%Y-%m-%d %H:%M")


def _named(name: str, values: list[str]) -> Fact:
    """Make a fact of names: the most frequent have a bin each, the others share the last."""
    frequent = pd.Series(values).value_counts().index[: _MOST_BINS - 1].tolist()
    index = {value: number for number, value in enumerate(frequent)}
    bins = np.array([index.get(value, len(frequent)) for value in values], np.int64)

    def said(of_class: npt.NDArray[np.bool_]) -> str:
        shares = np.bincount(bins[of_class], minlength=len(frequent) + 1) / of_class.sum()
        rest = np.bincount(bins[~of_class], minlength=len(frequent) + 1) / (~of_class).sum()
        best = int(np.argmax(shares - rest))
        value = frequent[best] if best < len(frequent) else "something rare"
        return f"{value} in {shares[best]:.0%} of its photos, {rest[best]:.0%} of the others"

    return Fact(name, bins, said)


def _measured(name: str, values: Floats, text: Callable[[float], str]) -> Fact:
    """Make a fact of numbers: bins of equal counts, and one for photos without the number."""
    there = values[np.isfinite(values)]
    number = min(_MOST_BINS, max(2, there.size // _LEAST_IN_BIN))
    edges = np.unique(np.quantile(there, np.arange(1, number) / number)) if there.size else np.empty(0)
    bins = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), len(edges) + 1).astype(np.int64)
    bins = np.unique(bins, return_inverse=True)[1]

    def said(of_class: npt.NDArray[np.bool_]) -> str:
        parts = []
        for part in (values[of_class], values[~of_class]):
            known = part[np.isfinite(part)]
            if known.size:
                low, middle, high = (text(float(value)) for value in np.quantile(known, [0.05, 0.5, 0.95]))
                parts.append(f"{middle} ({low} to {high})" if low != high else middle)
            else:
                parts.append("none")
        return f"{parts[0]} against {parts[1]}"

    return Fact(name, bins, said)


def _folds(labels: Ints) -> Ints:
    """Deal the photos of each class to the folds, in an order that is always the same."""
    order = np.random.default_rng(0).permutation(len(labels))
    folds = np.empty(len(labels), np.int64)
    folds[order] = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy() % _FOLDS
    return folds


def _accuracies(bins: Ints, labels: Ints, folds: Ints, z: float) -> tuple[Floats, Floats]:
    """Return for each class the cross-validated balanced accuracy against the rest, and its lower end."""
    num_bins, num_classes = int(bins.max()) + 1, int(labels.max()) + 1
    shape = (_FOLDS, num_bins, num_classes)
    counts = np.bincount((folds * num_bins + bins) * num_classes + labels, minlength=int(np.prod(shape))).reshape(shape)
    train = counts.sum(axis=0) - counts
    others = train.sum(axis=2, keepdims=True) - train
    ours = (train + _SMOOTHING) / (train.sum(axis=1, keepdims=True) + _SMOOTHING * num_bins)
    theirs = (others + _SMOOTHING) / (others.sum(axis=1, keepdims=True) + _SMOOTHING * num_bins)
    said = (ours > theirs) & (train > 0)
    hits = (counts * said).sum(axis=(0, 1))
    rejected = ((counts.sum(axis=2, keepdims=True) - counts) * ~said).sum(axis=(0, 1))
    size = np.bincount(labels)
    rest = len(labels) - size
    accuracies: Floats = (hits / size + rejected / rest) / 2
    lower: Floats = (_wilson_lower(hits, size, z) + _wilson_lower(rejected, rest, z)) / 2
    return accuracies, lower


def _wilson_lower(hits: Ints, number: Ints, z: float) -> Floats:
    share = hits / number
    middle = share + z**2 / (2 * number)
    lower: Floats = (middle - z * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))) / (1 + z**2 / number)
    return lower
