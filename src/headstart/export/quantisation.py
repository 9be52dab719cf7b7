"""Classifiers in 8-bit integers, by NNCF's quantisation after training, on the ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError
from headstart.photos.views import Pixels
from headstart.training.openvino_models import nncf_without_telemetry, quantise

# NNCF's own default: more photos move the ranges little.
MOST_PHOTOS = 300


def quantised(model: Path, photos: Sequence[Pixels]) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yield ways to quantise a classifier's `model.onnx`: a name, and what writes it to a path; the fastest first.

    - `int8`: every convolution and the classifier. The resizing before and the acceptance after stay in float32.
    - `int8 mixed`: depthwise convolutions, too, stay in float32: the ranges of their channels differ most.

    Args:
        model: with one photo of any size as its input `photos`.
        photos: training photos, by which ranges are set.

    Raises:
        HeadstartError: when NNCF is not installed.
    """
    nncf, onnx = _nncf(), _onnx()
    graph = onnx.load(model).graph
    around, depthwise = _around(graph), _depthwise(graph)
    dataset = nncf.Dataset(list(photos), lambda photo: {"photos": photo[None]})
    for name, kept in (("int8", around), ("int8 mixed", around + depthwise)):

        def write(path: Path, kept: list[str] = kept) -> None:
            scope = nncf.IgnoredScope(names=kept)
            onnx.save(quantise(onnx.load(model), dataset, len(photos), ignored_scope=scope), path)

        yield name, write


def _around(graph: Any) -> list[str]:
    """Name the nodes before the first convolution and after the classifier."""
    kinds = [node.op_type for node in graph.node]
    first, last = kinds.index("Conv"), kinds.index("Gemm")
    return [node.name for number, node in enumerate(graph.node) if not first <= number <= last]


def _depthwise(graph: Any) -> list[str]:
    def groups(node: Any) -> int:
        return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)

    return [node.name for node in graph.node if node.op_type == "Conv" and groups(node) > 1]


def _onnx() -> Any:
    import onnx

    return onnx


def _nncf() -> Any:
    try:
        return nncf_without_telemetry()
    except ImportError as error:
        raise HeadstartError(
            f"--int8 needs {error.name}, which is not installed.", "Install it with: pip install 'headstart[int8]'"
        ) from None
