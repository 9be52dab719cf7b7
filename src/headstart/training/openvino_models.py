"""Networks in OpenVINO's format: converted, quantised, and kept for next time."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.atomic import folder_written_whole
from headstart.photos.views import Pixels


@contextlib.contextmanager
def _no_telemetry() -> Iterator[None]:
    """Hide the package that reports each import and conversion to OpenVINO's makers; a stub is taken instead."""
    hidden = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["openvino_telemetry"]
        if hidden is not None:
            sys.modules["openvino_telemetry"] = hidden


def openvino_without_telemetry() -> Any:
    """Import OpenVINO without its telemetry."""
    if "openvino" not in sys.modules:
        with _no_telemetry():
            import openvino
            import openvino.tools.ovc.convert_impl  # binds the stub for good
    import openvino

    return openvino


def nncf_without_telemetry() -> Any:
    """Import NNCF, which quantises networks, without its telemetry and its remarks.

    Raises:
        ImportError: when it, or what it needs, is not installed.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # that there is no CUDA
    with _no_telemetry():
        import nncf
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def quantise(model: Any, photos: Any, count: int, **options: Any) -> Any:
    """Return a model in 8-bit integers, its ranges set by `count` items of an NNCF dataset of photos, without a word.

    Raises:
        ImportError: when NNCF is not installed.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf_without_telemetry().quantize(model, photos, subset_size=count, **options)


def converted(network: nn.Module, image_size: int, batch_size: int, cache: Path) -> Path:
    """Convert a network to OpenVINO's format, or find it converted already."""
    openvino = openvino_without_telemetry()
    digest = hashlib.sha256(f"{openvino.__version__}:{image_size}:{batch_size}:{network}".encode())
    for name, tensor in [*network.named_buffers(), *network.named_parameters()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    folder = cache / "engines" / digest.hexdigest()[:24]
    if not (folder / "model.xml").exists():
        _convert(network, image_size, batch_size, folder)
    return folder / "model.xml"


def _convert(network: nn.Module, image_size: int, batch_size: int, folder: Path) -> None:
    openvino = openvino_without_telemetry()
    from openvino.preprocess import PrePostProcessor

    example = torch.zeros(1, 3, image_size, image_size)
    with warnings.catch_warnings(), torch.no_grad():
        # OpenVINO reads traces of torch.jit, which PyTorch has deprecated, and traced shape checks warn.
        warnings.simplefilter("ignore")
        # Traced here without the check that a second trace is the same, which takes a second.
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        model = openvino.convert_model(traced, example_input=example)
    model.reshape([batch_size, 3, image_size, image_size])
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32)
    with folder_written_whole(folder) as draft:
        openvino.save_model(steps.build(), draft / "model.xml", compress_to_fp16=False)


def quantised(file: Path, digest: str, pixels: Callable[[], Pixels]) -> Path:
    """Quantise a converted network to 8-bit integers, or find it quantised already.

    Args:
        file: from `converted`.
        digest: stands for the photos that set the ranges of activations.
        pixels: draws them, (n, size, size, 3) uint8; what does not fill a batch of the network's is left out.

    Raises:
        ImportError: when NNCF is not installed.
    """
    folder = file.parent.with_name(f"{file.parent.name}-int8-{digest}")
    if not (folder / file.name).exists():
        nncf, openvino = nncf_without_telemetry(), openvino_without_telemetry()
        model, photos = openvino.Core().read_model(file), pixels()
        rows = model.inputs[0].shape[0]
        batches = [photos[start : start + rows] for start in range(0, len(photos) - rows + 1, rows)]
        model = quantise(model, nncf.Dataset(batches), len(batches))
        with folder_written_whole(folder) as draft:
            openvino.save_model(model, draft / file.name, compress_to_fp16=False)
    return folder / file.name
