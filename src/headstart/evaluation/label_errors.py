"""Label errors: photos whose label the others contradict (confident learning; Northcutt, Jiang and Chuang, 2021)."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pandas as pd

from headstart.evaluation.metrics import Labels, Probabilities, softmax
from headstart.training.embedding import Photo
from headstart.training.probe import Floats, fit_probe
from headstart.training.stages import TrainingData

# Five folds, or more iterations, rank no better (docs/experiments.md), and take up to four times as long.
FOLDS, _MAX_ITERATIONS = 3, 25
COLUMNS = ["path", "given_label", "suggested_label", "score", "label"]


def find_label_issues(data: TrainingData, strength: float, weights: Floats) -> tuple[pd.DataFrame, int]:
    """Rank the photos whose label a probe contradicts by how likely that label is wrong, the likeliest first.

    Each photo is judged by a probe that was fitted on others, whatever its split; the classifier takes nothing from it.

    Args:
        data: the photos, with their pooled features in the store.
        strength: of the probe's regularisation.
        weights: (num_classes,) a weight per class for the loss.

    Returns:
        The ranked photos: path, given_label, suggested_label, score (the probability of the given label, 0 to 1), and
        label, empty: filled in by hand, the table can be given to `train` as corrections. And how many of them are
        likely wrong, by confident learning's estimate; the others may just be hard.
    """
    from cleanlab.filter import find_label_issues as confident_learning
    from cleanlab.rank import get_label_quality_scores

    photos = [photo for split in ("train", "validation", "test") for photo in data.photos[split]]
    labels = np.concatenate([data.labels[split] for split in ("train", "validation", "test")])
    probabilities = out_of_sample(data, photos, labels, strength, weights)
    # The probability of the given label ranks planted errors best (docs/experiments.md).
    scores = get_label_quality_scores(labels, probabilities, method="self_confidence")
    suspects = confident_learning(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    rows = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    rows = rows[np.argsort(scores[rows], kind="stable")]
    names = np.array(data.class_names, dtype=object)
    table = pd.DataFrame(
        {
            "path": [photos[row].name for row in rows],
            "given_label": names[labels[rows]],
            "suggested_label": names[probabilities[rows].argmax(axis=1)],
            "score": scores[rows],
            "label": "",
        },
        columns=COLUMNS,
    )
    return table, int(suspects.sum())


def out_of_sample(
    data: TrainingData, photos: list[Photo], labels: Labels, strength: float, weights: Floats
) -> Probabilities:
    """Return (n, num_classes) probabilities of each photo by a probe that was fitted without it or a copy of it."""
    probabilities = np.empty((len(photos), len(data.class_names)), np.float32)
    folds = dealt_into_folds(photos, labels)
    for number in range(FOLDS):
        inside, outside = np.flatnonzero(folds != number), np.flatnonzero(folds == number)
        if not len(outside):
            continue
        features = data.embedder.features([photos[row] for row in inside], [0])
        # Validation is of no use with one strength; the first rows stand in for it.
        some = data.embedder.features([photos[row] for row in inside[:1]], [0])
        head, _ = fit_probe(features, labels[inside], some, labels[inside[:1]], weights, (strength,), _MAX_ITERATIONS)
        rows = data.embedder.features([photos[row] for row in outside], [0])
        probabilities[outside] = softmax(head.logits(rows))
    return probabilities


def dealt_into_folds(photos: list[Photo], labels: Labels) -> npt.NDArray[np.int64]:
    """Return each photo's fold: every class is dealt out evenly, by its photos' bytes, copies together."""
    keys = [hashlib.sha256(photo.digest.encode()).digest() for photo in photos]
    folds: dict[bytes, int] = {}
    dealt = np.zeros(int(labels.max()) + 1, np.int64)
    for row in sorted(range(len(photos)), key=keys.__getitem__):
        if keys[row] not in folds:
            folds[keys[row]] = int(dealt[labels[row]]) % FOLDS
            dealt[labels[row]] += 1
    return np.array([folds[key] for key in keys], np.int64)
