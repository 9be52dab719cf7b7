"""A classifier for LiteRT, on phones and small boards: `model.tflite`.

The Keras model is converted by TensorFlow, which runs in a process of its own: it need not share memory, threads and
log settings with PyTorch.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from headstart.classifier import Classifier
from headstart.errors import HeadstartError
from headstart.evaluation.metrics import Bools, Probabilities
from headstart.export import keras
from headstart.export.parity import Runtime
from headstart.export.silence import talk_held_back
from headstart.photos.views import Pixels

_CONVERSION = """\
import sys
import keras
import tensorflow as tf

model = keras.models.load_model(sys.argv[1])
pixels = keras.Input(model.inputs[0].shape[1:], dtype="uint8", name="pixels")
whole = keras.Model(pixels, model(keras.ops.cast(pixels, "float32"), training=False))
with open(sys.argv[2], "wb") as file:
    file.write(tf.lite.TFLiteConverter.from_keras_model(whole).convert())
"""


def _ready(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise HeadstartError(
            f"the export to LiteRT needs {missing[0]}, which is not installed.",
            "Install it with: pip install 'headstart[litert]' (where TensorFlow has no release for this Python, "
            "use another Python for this).",
        )


def write(classifier: Classifier, folder: Path) -> None:
    """Write `model.tflite`.

    Raises:
        HeadstartError: when TensorFlow or LiteRT is missing, or the conversion fails.
    """
    _ready("tensorflow", "ai_edge_litert")
    keras.write(classifier, folder)
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-c", _CONVERSION, str(folder / "model.keras"), str(folder / "model.tflite")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    (folder / "model.keras").unlink()
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise HeadstartError(f"TensorFlow could not convert the classifier: {reason}", "Try another version of it.")


def open_model(path: Path) -> Runtime:
    """Open a model in LiteRT; it takes (n, image_size, image_size, 3) pixels.

    Raises:
        HeadstartError: when LiteRT is missing.
    """
    _ready("ai_edge_litert")
    with talk_held_back():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=os.cpu_count())
        interpreter.allocate_tensors()  # which tells of the delegate that it takes
    (pixels_input,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pixels: Pixels) -> tuple[Probabilities, Bools | None]:
        interpreter.resize_tensor_input(pixels_input["index"], pixels.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(pixels_input["index"], pixels)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(output["index"])), None

    return run
