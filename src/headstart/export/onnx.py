"""A classifier for ONNX Runtime and whatever else reads ONNX: `model.onnx`."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from headstart.classifier import Classifier
from headstart.errors import HeadstartError
from headstart.evaluation.metrics import Bools, Probabilities
from headstart.export.parity import Runtime
from headstart.export.pt2 import exported_program
from headstart.photos.views import Pixels

# Enough for every operation here, and old enough for runtimes of some years ago.
_OPSET = 18


@contextmanager
def onnx_ready() -> Iterator[None]:
    """Say which extra is missing, where an import inside the block fails.

    Raises:
        HeadstartError: when ONNX or its runtime is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise HeadstartError(
            f"the export to ONNX needs {error.name}, which is not installed.",
            "Install it with: pip install 'headstart[onnx]'",
        ) from None


def write(classifier: Classifier, folder: Path) -> None:
    """Write `model.onnx`, weights included.

    Raises:
        HeadstartError: when ONNX is not installed.
    """
    with onnx_ready():
        import onnxruntime  # noqa: F401 - before seconds of work are spent
        import onnxscript  # noqa: F401
    names = ["probabilities", *(["accepted"] if classifier.rejection else [])]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _logging_off("onnxscript", "torch.onnx"):
        warnings.simplefilter("ignore")  # of PyTorch's own modules, which it is replacing
        program = torch.onnx.export(
            exported_program(classifier),
            input_names=["photos"],
            output_names=names,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        if program is None:
            raise AssertionError("PyTorch's ONNX exporter returned nothing")
        program.save(str(folder / "model.onnx"))


def open_model(path: Path) -> Runtime:
    """Open a model in ONNX Runtime, on the CPU.

    Raises:
        HeadstartError: when ONNX Runtime is not installed.
    """
    with onnx_ready():
        import onnxruntime
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(photos: Pixels) -> tuple[Probabilities, Bools | None]:
        probabilities, *accepted = session.run(None, {"photos": photos})
        return probabilities, accepted[0] if accepted else None

    return run


@contextmanager
def _logging_off(*names: str) -> Iterator[None]:
    """Keep loggers quiet below errors inside the block."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
