"""The gate that every export passes: the other library says what PyTorch says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headstart.classifier import Classifier
from headstart.errors import HeadstartError
from headstart.evaluation.metrics import Probabilities, softmax
from headstart.photos.views import Pixels

TOLERANCE = 1e-3
# Classes whose probabilities differ by less are equal, and either may come first.
_TIE = 1e-6
_RANDOM_IMAGES = 4


def check_parity(classifier: Classifier, predict: Callable[[Pixels], Probabilities], name: str) -> float:
    """Compare an exported classifier's probabilities with PyTorch's, on its self-test's inputs and on random images.

    Args:
        classifier: what was exported.
        predict: turns (n, image_size, image_size, 3) uint8 pixels into (n, num_classes) probabilities.
        name: of what was exported, for the error.

    Returns:
        The greatest difference of a probability.

    Raises:
        HeadstartError: when a probability differs by more than 1e-3, or another class comes first.
    """
    selftest, _ = classifier.selftest()
    noise = np.random.default_rng(0).integers(0, 256, (_RANDOM_IMAGES, *selftest.shape[1:]), dtype=np.uint8)
    pixels = np.concatenate([selftest, noise])
    expected = softmax(classifier.reference_logits(pixels))
    found = predict(pixels)
    difference = float(np.abs(found - expected).max())
    first = np.take_along_axis(expected, found.argmax(axis=1)[:, None], axis=1)[:, 0]
    changed = int((first < expected.max(axis=1) - _TIE).sum())
    if changed or not difference <= TOLERANCE:
        raise HeadstartError(
            f"{name} gives probabilities that differ by {difference:.2g} from PyTorch's (expected at most "
            f"{TOLERANCE:.2g}), and another first class for {changed} of {len(pixels)} images; nothing was written.",
            "A library computes something else: try another version of it, and please report this.",
        )
    return difference
