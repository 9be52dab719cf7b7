"""The formats that a classifier can be exported to: what each is written by, read again by, and needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headstart.classifier import Classifier
from headstart.errors import HeadstartError
from headstart.export import keras, litert, onnx, openvino, pt2
from headstart.export.parity import Runtime


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        title: as its users know it.
        runtime: the library that its example needs, as pip names it.
        files: that its model consists of, the one to open first.
        whole: whether its graph takes photos of any size and says if a label is accepted; else it takes what
            `example.py` makes of a photo, and gives probabilities alone.
        exact: whether the network sees the very pixels that the classifier's own does; not where the graph resizes
            and the library turns float64 into float32.
        write: writes the model's files into a folder.
        open: reads a model's file again, in its own library.
        from_onnx: makes the model's files beside a `model.onnx`; None where there is none on the way, and no `--int8`.
    """

    title: str
    runtime: str
    files: tuple[str, ...]
    whole: bool
    exact: bool
    write: Callable[[Classifier, Path], None]
    open: Callable[[Path], Runtime]
    from_onnx: Callable[[Path], None] | None = None


FORMATS: dict[str, Format] = {
    "onnx": Format("ONNX", "onnxruntime", ("model.onnx",), True, True, onnx.write, onnx.open_model, lambda path: None),
    "openvino": Format(
        "OpenVINO",
        "openvino",
        ("model.xml", "model.bin"),
        True,
        False,
        openvino.write,
        openvino.open_model,
        openvino.convert,
    ),
    "pt2": Format("PyTorch", "torch", ("model.pt2",), True, True, pt2.write, pt2.open_model),
    "keras": Format("Keras", "keras", ("model.keras",), False, True, keras.write, keras.open_model),
    "litert": Format("LiteRT", "ai-edge-litert", ("model.tflite",), False, True, litert.write, litert.open_model),
}


def format_named(name: str) -> Format:
    """Return a format by its name.

    Raises:
        HeadstartError: when there is none.
    """
    if name not in FORMATS:
        raise HeadstartError(f"--format {name}: unknown; expected one of {', '.join(FORMATS)}.", "Choose one of them.")
    return FORMATS[name]
