"""How far probabilities can be trusted: temperature scaling (Guo et al., 2017)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from headstart.training.probe import loss_and_accuracy

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Beyond these, validation photos are all right or all wrong, and say nothing of temperatures.
_LEAST, _MOST = 0.05, 20.0


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the temperature at which logits are the least wrong in cross-entropy: above 1, they were too sure.

    Args:
        logits: (n, num_classes), of photos that were not trained on.
        labels: (n,) true class indices.

    Returns:
        A number from 0.05 to 20.
    """
    found = minimize_scalar(
        lambda exponent: loss_and_accuracy(logits / math.exp(exponent), labels)[0],
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
