"""A classifier for OpenVINO: `model.xml` and `model.bin`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart.classifier import Classifier
from headstart.errors import HeadstartError
from headstart.evaluation.metrics import Bools, Probabilities
from headstart.export import onnx
from headstart.export.parity import Runtime
from headstart.photos.views import Pixels
from headstart.training.openvino_models import openvino_without_telemetry


def openvino_ready() -> Any:
    """Import OpenVINO, without its telemetry.

    Raises:
        HeadstartError: when it is not installed.
    """
    try:
        return openvino_without_telemetry()
    except ImportError:
        raise HeadstartError(
            "the export to OpenVINO needs openvino, which is not installed.", "Install it with: pip install openvino"
        ) from None


def write(classifier: Classifier, folder: Path) -> None:
    """Write `model.xml` and `model.bin`, and the `model.onnx` that they are made of, whose names they keep.

    Raises:
        HeadstartError: when OpenVINO or ONNX is not installed.
    """
    openvino_ready()  # before seconds of work are spent
    onnx.write(classifier, folder)
    convert(folder / "model.onnx")


def convert(path: Path) -> None:
    """Write an ONNX file's `.xml` and `.bin` beside it."""
    openvino = openvino_ready()
    openvino.save_model(openvino.convert_model(path), path.with_suffix(".xml"), compress_to_fp16=False)


def open_model(path: Path) -> Runtime:
    """Open a model on the CPU, in float32: where a processor has bfloat16, OpenVINO would take that by itself."""
    model = openvino_ready().Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(photos: Pixels) -> tuple[Probabilities, Bools | None]:
        results = model(photos)
        return results[0].copy(), results[1].copy() if len(model.outputs) > 1 else None

    return run
