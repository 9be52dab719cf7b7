"""None of these: which predictions to accept.

A photo is accepted when its label is probable enough and when it resembles the training photos. How probable follows
from an accuracy that the accepted ones shall have (selective classification; Geifman and El-Yaniv, 2017). How alike is
the cosine distance, in the space of pooled features, to the mean direction of the nearest class: photos of other things
lie far from all of them, even where the network is sure (docs/experiments.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, ndtri

from headstart.evaluation.metrics import Bools, Labels, Probabilities

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Of the photos that resemble the training photos, this share is taken for something else.
UNLIKE_SHARE = 0.01
# Logarithms of distances have no less spread than this: a few validation photos may be alike by chance.
_LEAST_SPREAD = 0.1
_CURVE_POINTS = 40


@dataclass(frozen=True)
class Rejection:
    """When a prediction is accepted.

    `directions` are (num_classes, num_features) float32 unit vectors. A photo is accepted when the probability of its
    label is at least `least_probability` and its distance (0 to 2) at most `greatest_distance`. `log_distance` is the
    mean and the standard deviation of the logarithm of the distances of photos like the training photos. `reached` says
    whether `min_accuracy` was reached on validation photos.
    """

    directions: Floats
    least_probability: float
    greatest_distance: float
    log_distance: tuple[float, float]
    min_accuracy: float
    reached: bool

    def accepts(self, confidence: Floats, distances: Floats) -> Bools:
        """Say which photos are accepted, from the (n,) probabilities of their labels and their (n,) distances."""
        return (confidence >= self.least_probability) & (distances <= self.greatest_distance)

    def strangeness(self, confidence: Floats, distances: Floats) -> Doubles:
        """Return one (n,) number that is high for what is improbable or unlike the training photos, or both."""
        mean, spread = self.log_distance
        survival = log_ndtr((mean - np.log(np.maximum(distances, 1e-9))) / spread)
        return np.asarray(-np.log(np.maximum(confidence, 1e-12)) - survival)

    def settings(self) -> dict[str, Any]:
        """Return all but the directions, as JSON values."""
        return {name: value for name, value in vars(self).items() if name != "directions"}

    @classmethod
    def read(cls, settings: dict[str, Any], directions: Floats) -> Rejection:
        """Return what `settings` was taken of.

        Raises:
            TypeError: when something is missing or too much.
        """
        return cls(directions=directions, **{**settings, "log_distance": tuple(settings["log_distance"])})

    def told(self) -> str:
        """Say in a sentence when a prediction is accepted."""
        probable = f"probability {100 * self.least_probability:.0f}% or more, and " if self.least_probability else ""
        rule = (
            f"accepted: {probable}no further from the training photos than {100 * (1 - UNLIKE_SHARE):.0f}% of photos "
            "like them"
        )
        if self.reached:
            return rule
        return f"{rule}; an accuracy of {100 * self.min_accuracy:.0f}% is not reached on validation photos even so"


def fit_rejection(
    directions: Floats, distances: Floats, probabilities: Probabilities, labels: Labels, min_accuracy: float
) -> Rejection:
    """Choose when to accept, on validation photos, from which the network has not learnt.

    Args:
        directions: (num_classes, num_features) of the training photos, from `class_directions`.
        distances: (n,) of the validation photos to them.
        probabilities: (n, num_classes) of the validation photos.
        labels: (n,) of the validation photos.
        min_accuracy: of the accepted photos, 0 to 1.
    """
    logs = np.log(np.maximum(distances, 1e-9).astype(np.float64))
    mean, spread = float(logs.mean()), max(float(logs.std()), _LEAST_SPREAD)
    greatest = math.exp(mean + spread * float(-ndtri(UNLIKE_SHARE)))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    least, reached = least_probability(confidence, right, min_accuracy)
    return Rejection(directions, least, greatest, (mean, spread), min_accuracy, reached)


def class_directions(features: Iterable[Floats], labels: Labels, num_classes: int) -> Floats:
    """Return the (num_classes, num_features) mean directions of each class's features, as unit vectors.

    Args:
        features: (n, num_features) pooled features, in parts.
        labels: (n,) of all parts.
        num_classes: of which each has some.
    """
    sums, start = np.zeros(0, np.float32), 0
    for part in features:
        one_hot = np.eye(num_classes, dtype=np.float32)[labels[start : start + len(part)]]
        sums = one_hot.T @ _unit(part) + (sums if start else 0)
        start += len(part)
    return _unit(sums)


def distances_to(directions: Floats, features: Floats) -> Floats:
    """Return the (n,) cosine distances of (n, num_features) features to the nearest class, 0 to 2."""
    return np.asarray(1 - (_unit(features) @ directions.T).max(axis=1))


def least_probability(confidence: Floats, right: Bools, min_accuracy: float) -> tuple[float, bool]:
    """Return the lowest threshold at which the photos above it are right often enough, and whether there is one.

    How often they are right is taken together with two photos more that are right as often as the probabilities say,
    so that a few lucky photos prove little. Where no threshold will do, the one with the highest share is returned.

    Args:
        confidence: (n,) probabilities of the predicted labels.
        right: (n,) whether they are right.
        min_accuracy: 0 to 1.
    """
    order = np.argsort(-confidence, kind="stable")
    count = np.arange(len(order)) + 1
    shares = (np.cumsum(right[order]) + 2 * np.cumsum(confidence[order]) / count) / (count + 2)
    enough = np.flatnonzero(shares >= min_accuracy)
    if enough.size and enough[-1] == len(order) - 1:
        return 0.0, True
    place = int(enough[-1]) if enough.size else int(np.argmax(shares))
    return float(confidence[order[place]]), bool(enough.size)


def coverage_curve(strangeness: Doubles, right: Bools) -> list[dict[str, float]]:
    """Return accuracy by coverage (0 to 1) when the least strange photos are accepted first, as JSON values."""
    order = np.argsort(strangeness, kind="stable")
    accuracy = np.cumsum(right[order]) / (np.arange(len(order)) + 1)
    places = np.unique(np.linspace(0, len(order) - 1, min(len(order), _CURVE_POINTS)).astype(int))
    return [{"coverage": (int(n) + 1) / len(order), "accuracy": float(accuracy[n])} for n in places]


def accepted_of(accepted: Bools, right: Bools) -> dict[str, Any]:
    """Return what is accepted, as JSON values: photos, accepted, coverage and accuracy (None where none is)."""
    count = int(accepted.sum())
    accuracy = float(right[accepted].mean()) if count else None
    return {"photos": len(right), "accepted": count, "coverage": count / len(right), "accuracy": accuracy}


def accepted_text(accepted: dict[str, Any]) -> str:
    """Write what `accepted_of` returns: `96% of the photos, of which 97.1% right`."""
    text = f"{100 * accepted['coverage']:.0f}% of the photos"
    return text if accepted["accuracy"] is None else f"{text}, of which {100 * accepted['accuracy']:.1f}% right"


def told_apart(own: Doubles, outsiders: Doubles) -> float:
    """Return the area under the ROC curve by which strangeness tells outsiders from the own photos, 0.5 for not."""
    # Imported here: it takes most of a second, which who only predicts need not wait for.
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.zeros(len(own)), np.ones(len(outsiders))])
    return float(roc_auc_score(truth, np.concatenate([own, outsiders])))


def _unit(vectors: Floats) -> Floats:
    vectors = vectors.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
