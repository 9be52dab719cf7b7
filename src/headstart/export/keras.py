"""A classifier for Keras: `model.keras` with its labels, an example and a README."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.atomic import write_text
from headstart.classifier import Classifier
from headstart.evaluation.metrics import Probabilities
from headstart.export.folder import export_folder
from headstart.export.keras_model import keras_model, keras_ready
from headstart.export.parity import check_parity
from headstart.photos.views import CROP_FRACTION, Pixels

FILES = ("model.keras", "labels.txt", "example.py", "README.md")
_README = """\
# Image classifier in Keras: {num_classes} classes

Made by Headstart from a trained EfficientNet ({backbone}).

| file | what |
|---|---|
| `model.keras` | the model, for Keras 3 on TensorFlow, PyTorch or JAX; plain layers, no code of its own |
| `labels.txt` | the classes in the order of its output, one a line |
| `example.py` | `python example.py PHOTO` prints the five likeliest classes; needs keras, numpy and pillow |

- **Input**: (n, {size}, {size}, 3) RGB pixels in 0-255, not normalised: the model does that. `example.py` shows how a
  photo becomes that ({policy}).
- **Output**: (n, {num_classes}) probabilities.

Before it was written, the saved model was read again and compared with the original on {size}-pixel images: the
probabilities differ by at most {difference:.1g}.
"""


def export_keras(classifier: Classifier, folder: Path) -> float:
    """Write a classifier's folder for Keras, whole or not at all.

    Returns:
        The greatest difference of a probability from PyTorch's, by the file read again.

    Raises:
        HeadstartError: when Keras is missing, when the folder holds anything but an earlier export, and when the saved
            model gives other probabilities than the classifier.
    """
    preprocessing = classifier.preprocessing
    with keras_ready() as keras, export_folder(folder, FILES) as draft:
        keras_model(classifier.network, preprocessing, keras).save(draft / "model.keras")
        predict = _predictor(draft / "model.keras", keras)
        difference = check_parity(classifier, predict, "the Keras model")
        # A name may hold a line break, and a line is a class.
        labels = [" ".join(name.splitlines()) for name in classifier.class_names]
        write_text(draft / "labels.txt", "\n".join(labels) + "\n")
        write_text(draft / "example.py", _example(classifier))
        readme = _README.format(
            num_classes=len(labels),
            backbone=classifier.backbone,
            size=preprocessing.image_size,
            policy=preprocessing.resize_policy,
            difference=difference,
        )
        write_text(draft / "README.md", readme)
    return difference


def _predictor(path: Path, keras: Any) -> Callable[[Pixels], Probabilities]:
    """Read a saved model again, and return what turns pixels into its probabilities."""
    model = keras.models.load_model(path)

    @torch.no_grad()
    def predict(pixels: Pixels) -> Probabilities:
        # One image at a time: there are few, and they may be large.
        outputs = [model(image[None].astype(np.float32), training=False) for image in pixels]
        return np.concatenate([keras.ops.convert_to_numpy(output) for output in outputs])

    return predict


def _example(classifier: Classifier) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(  # noqa: S701
        loader=PackageLoader("headstart.export", "."), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    preprocessing = classifier.preprocessing
    return environment.get_template("keras_example.py.jinja").render(
        size=preprocessing.image_size,
        policy=preprocessing.resize_policy,
        crop_fraction=CROP_FRACTION,
        fill=tuple(round(value) for value in preprocessing.mean),
    )
