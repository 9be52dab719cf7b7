"""A classifier for Keras: `model.keras`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from headstart.classifier import Classifier
from headstart.evaluation.metrics import Bools, Probabilities
from headstart.export.keras_model import keras_model, keras_ready
from headstart.export.parity import Runtime
from headstart.export.silence import talk_held_back
from headstart.photos.views import Pixels


def write(classifier: Classifier, folder: Path) -> None:
    """Write `model.keras`.

    Raises:
        HeadstartError: when Keras is missing, and when the network is of a family that it has no layers for.
    """
    with keras_ready() as keras, talk_held_back():
        keras_model(classifier.network, classifier.preprocessing, keras).save(folder / "model.keras")


def open_model(path: Path) -> Runtime:
    """Read a model again; it takes (n, image_size, image_size, 3) pixels.

    Raises:
        HeadstartError: when Keras is missing.
    """
    with keras_ready() as keras, talk_held_back():
        model = keras.models.load_model(path)

    @torch.no_grad()
    def run(pixels: Pixels) -> tuple[Probabilities, Bools | None]:
        with keras_ready() as keras:
            output = model(pixels.astype(np.float32), training=False)
            return np.asarray(keras.ops.convert_to_numpy(output)), None

    return run
