"""How far probabilities can be trusted: temperature scaling (Guo et al., 2017)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from headstart.evaluation.metrics import Probabilities
from headstart.training.probe import loss_and_accuracy

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Before anything is seen, a temperature is taken to be within a factor of 1.6 of 1, two times of three. A few photos
# that are all right would else make any probability certain, and any two networks that are right equally good.
_SPREAD = 0.5
_LEAST, _MOST = 0.05, 20.0
_MOST_BINS = 15


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the temperature at which logits are the least wrong in cross-entropy: above 1, they were too sure.

    The most probable one where its logarithm is normal with mean 0 and a standard deviation of 0.5 beforehand.

    Args:
        logits: (n, num_classes), of photos that were not trained on.
        labels: (n,) true class indices.

    Returns:
        A number from 0.05 to 20.
    """

    def cost(exponent: float) -> float:
        loss = loss_and_accuracy(logits / math.exp(exponent), labels)[0]
        return loss + (exponent / _SPREAD) ** 2 / (2 * len(labels))

    found = minimize_scalar(
        cost,
        bounds=(math.log(_LEAST), math.log(_MOST)),
        method="bounded",
    )
    return math.exp(found.x)


def calibrated_loss_and_accuracy(logits: Logits, labels: Labels) -> tuple[float, float]:
    """Return the cross-entropy at the best temperature, and the accuracy (0 to 1), which has none.

    What is left is how well the classes are told apart, whatever label smoothing or overfitting did to the scale. It
    varies less from one small set of photos to another than accuracy does.
    """
    return loss_and_accuracy(logits / fit_temperature(logits, labels), labels)


def calibrated_losses(logits: Logits, labels: Labels) -> npt.NDArray[np.float64]:
    """Return the (n,) cross-entropy of each photo at the best temperature of all."""
    scaled = logits.astype(np.float64) / fit_temperature(logits, labels)
    losses: npt.NDArray[np.float64] = logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]
    return losses


def calibration_error(probabilities: Probabilities, labels: Labels) -> dict[str, Any]:
    """Measure how far the probability of the predicted class is from how often it is right.

    The expected calibration error (Naeini et al., 2015) over at most 15 bins with equally many photos each, ten at
    least: few photos in a bin make an error of chance alone.

    Args:
        probabilities: (n, num_classes), rows summing to 1.
        labels: (n,) true class indices.

    Returns:
        JSON values: ece (0 to 1), and bins, a list of confidence, accuracy and photos.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(confidence, kind="stable")
    bins = [
        {"confidence": float(confidence[rows].mean()), "accuracy": float(right[rows].mean()), "photos": len(rows)}
        for rows in np.array_split(order, int(np.clip(len(order) // 10, 1, _MOST_BINS)))
    ]
    error = sum(row["photos"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / len(labels)
    return {"ece": error, "bins": bins}
