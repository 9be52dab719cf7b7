"""Label errors: photos whose label the others contradict (confident learning; Northcutt, Jiang and Chuang, 2021)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from headstart.evaluation.metrics import CHANCE, Labels, Probabilities, mcnemar_p_value, softmax
from headstart.photos.drawing import Photo
from headstart.photos.split import SPLITS
from headstart.training.data import TrainingData
from headstart.training.probe import Floats, fit_probe

# Five folds, or more iterations, rank no better (docs/experiments.md), and take up to four times as long.
FOLDS, _MAX_ITERATIONS = 3, 25
COLUMNS = ["path", "given_label", "suggested_label", "score", "label"]


def find_label_issues(
    data: TrainingData, strength: float, weights: Floats, network: Probabilities | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rank the photos whose label is contradicted by how likely that label is wrong, the likeliest first.

    Each photo is judged by a probe that was fitted on others, whatever its split. Where a fine-tuned network is clearly
    better than the probe on the validation and test photos, it judges these instead: it did not learn their labels. It
    did learn those of the training photos, so the probe judges them, and what the network says of the probe's doubts
    tells how far to trust them. The classifier takes nothing from any of this.

    Args:
        data: the photos, with their pooled features in the store.
        strength: of the probe's regularisation.
        weights: (num_classes,) a weight per class for the loss.
        network: (n, num_classes) a fine-tuned network's probabilities of the validation photos and then the test
            photos, none of which it was trained on; None without one.

    Returns:
        The ranked photos: path, given_label, suggested_label, score (the probability of the given label, 0 to 1), and
        label, empty: filled in by hand, the table can be given to `train` as corrections. And JSON values: photos;
        listed; suspects, how many of them are likely wrong by confident learning's estimate, where the others may
        just be hard; and opinion, what a better network says of the probe (see `second_opinion`), or None.
    """
    from cleanlab.rank import get_label_quality_scores

    photos = [photo for split in SPLITS for photo in data.photos[split]]
    labels = np.concatenate([data.labels[split] for split in SPLITS])
    probabilities = out_of_sample(data, photos, labels, strength, weights)
    suspects, opinion = _suspects(labels, probabilities), None
    if network is not None:
        training = len(labels) - len(network)
        opinion = _opinion(labels[training:], probabilities[training:], suspects[training:], network)
        if opinion is not None:
            probabilities[training:] = network
            suspects = _suspects(labels, probabilities)
            opinion["training"] = int(suspects[:training].sum())
    # The probability of the given label ranks planted errors best (docs/experiments.md).
    scores = get_label_quality_scores(labels, probabilities, method="self_confidence")
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
    found = {"photos": len(labels), "listed": len(table), "suspects": int(suspects.sum()), "opinion": opinion}
    return table, found


def _suspects(labels: Labels, probabilities: Probabilities) -> npt.NDArray[np.bool_]:
    from cleanlab.filter import find_label_issues as confident_learning

    found: npt.NDArray[np.bool_] = confident_learning(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    return found


def _opinion(
    labels: Labels, probe: Probabilities, doubted: npt.NDArray[np.bool_], network: Probabilities
) -> dict[str, Any] | None:
    """Compare the probe with the network on photos that neither learnt from; None unless the network is better."""
    probe_right, network_right = probe.argmax(axis=1) == labels, network.argmax(axis=1) == labels
    only_probe, only_network = int((probe_right & ~network_right).sum()), int((network_right & ~probe_right).sum())
    if only_network <= only_probe or mcnemar_p_value(only_probe, only_network) >= CHANCE:
        return None
    return {
        "photos": len(labels),
        "probe_accuracy": float(probe_right.mean()),
        "network_accuracy": float(network_right.mean()),
        "doubted": int(doubted.sum()),
        "confirmed": int((doubted & network_right).sum()),
    }


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
