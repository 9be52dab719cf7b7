"""How far probabilities can be trusted: temperature scaling (Guo et al., 2017)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Beyond these, validation photos are all right or all wrong, and say nothing of temperatures.
_LEAST, _MOST = 0.05, 20.0


def log_loss_at(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """Return the mean cross-entropy (natural logarithm) of logits divided by a temperature."""
    scaled = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(-scaled[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the temperature at which logits are the least wrong in cross-entropy: above 1, they were too sure.

    Args:
        logits: (n, num_classes), of photos that were not trained on.
        labels: (n,) true class indices.

    Returns:
        A number from 0.05 to 20.
    """
    found = minimize_scalar(
        lambda exponent: log_loss_at(logits, labels, math.exp(exponent)),
        bounds=(math.log(_LEAST), math.log(_MOST)),
        method="bounded",
    )
    return math.exp(found.x)


def calibrated_log_loss(logits: Logits, labels: Labels) -> float:
    """Return the cross-entropy at the best temperature.

    What is left is how well the classes are told apart, whatever label smoothing or overfitting did to the scale. It
    varies less from one small set of photos to another than accuracy does.
    """
    return log_loss_at(logits, labels, fit_temperature(logits, labels))
