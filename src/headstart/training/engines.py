"""Engines run a network that does not train, as fast as this computer can.

OpenVINO on a CPU, PyTorch elsewhere and where OpenVINO is missing. An engine takes batches of uint8 pixels
and keeps several of them in flight, so that decoding and inference overlap.
"""

from __future__ import annotations

import copy
import importlib.util
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.choices import WantedEngine
from headstart.errors import HeadstartError
from headstart.network.depthwise import leave_cudnn
from headstart.photos.views import Pixels
from headstart.training.openvino_models import converted, openvino_without_telemetry, quantised

EngineName = Literal["openvino", "torch"]
Outputs = list[npt.NDArray[Any]]
Tag = TypeVar("Tag")


@dataclass(frozen=True)
class EngineChoice:
    """Which engine runs on which device in which precision, and why."""

    name: EngineName
    device: str
    precision: Literal["float32", "bfloat16", "float16"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name} on {self.device}, {self.precision} ({self.reason})"


@dataclass(frozen=True)
class Int8:
    """A network in 8-bit integers: what sets the ranges of its activations, and which of its outputs are wanted.

    `pixels` draws (n, size, size, 3) uint8 photos, `digest` stands for them.
    """

    digest: str
    pixels: Callable[[], Pixels]
    outputs: tuple[int, ...]


class Engine(Protocol):
    """A network ready to run on batches of at most `batch_size` images.

    `lanes` is how many batches it works on at once when `infer` is called from as many threads.
    """

    batch_size: int
    lanes: int

    def run(self, batches: Iterable[tuple[Tag, Pixels]]) -> Iterator[tuple[Tag, Outputs]]:
        """Yield the float32 or float16 outputs of each (n, size, size, 3) uint8 batch, in order, with its tag."""
        ...

    def infer(self, pixels: Pixels) -> Outputs:
        """Return the outputs of one (n, size, size, 3) uint8 batch, the same as `run` yields, once they are there.

        May be called from several threads at once. Python's lock is free while it waits.
        """
        ...


def filled(batch: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Return a batch of so many rows, those that it lacks being zero."""
    if len(batch) == rows:
        return batch
    whole = np.zeros((rows, *batch.shape[1:]), batch.dtype)
    whole[: len(batch)] = batch
    return whole


def choose_engine(wanted: WantedEngine = "auto") -> EngineChoice:
    """Choose the engine for this computer.

    Raises:
        HeadstartError: when OpenVINO is asked for and not installed.
    """
    has_openvino = importlib.util.find_spec("openvino") is not None
    if wanted == "openvino" and not has_openvino:
        raise HeadstartError(
            "--engine openvino: OpenVINO is not installed; expected one of auto, torch.",
            "Install it with: pip install openvino",
        )
    if wanted != "openvino" and torch.cuda.is_available():
        return EngineChoice("torch", "cuda", "float16", "a CUDA GPU is here")
    if wanted != "openvino" and torch.backends.mps.is_available():
        return EngineChoice("torch", "mps", "float16", "an Apple GPU is here")
    if wanted == "torch" or not has_openvino:
        why = "asked for" if wanted == "torch" else "OpenVINO is not installed"
        return EngineChoice("torch", "cpu", "float32", why)
    why = "asked for" if wanted == "openvino" else "no GPU, and OpenVINO is the faster engine on a CPU"
    if _openvino_has_bfloat16():
        return EngineChoice("openvino", "cpu", "bfloat16", f"{why}; this processor has bfloat16")
    return EngineChoice("openvino", "cpu", "float32", f"{why}; this processor has no bfloat16")


def _openvino_has_bfloat16() -> bool:
    return "BF16" in openvino_without_telemetry().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def open_engine(
    choice: EngineChoice, network: nn.Module, image_size: int, cache: Path, int8: Int8 | None = None
) -> Engine:
    """Make a network ready to run on (n, image_size, image_size, 3) uint8 pixels.

    Args:
        choice: from `choose_engine`.
        network: takes (n, 3, h, w) pixels in 0-255 and returns a tuple of tensors; in evaluation mode.
        image_size: height and width in pixels.
        cache: where the converted network is kept for next time.
        int8: how it computes in 8-bit integers, which OpenVINO alone does here.
    """
    if choice.name == "openvino":
        return _OpenVinoEngine(choice, network, image_size, cache, int8)
    return _TorchEngine(choice, network)


class _OpenVinoEngine:
    # Measured (benchmarks/README.md): 1 to 8 photos a request run equally fast; 4 keep Python's share small.
    batch_size = 4

    def __init__(
        self, choice: EngineChoice, network: nn.Module, image_size: int, cache: Path, int8: Int8 | None
    ) -> None:
        self._file = converted(network, image_size, self.batch_size, cache)
        self._outputs_kept: tuple[int, ...] | None = None
        if int8 is not None:
            self._file, self._outputs_kept = quantised(self._file, int8.digest, int8.pixels), int8.outputs
        self._hints = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32", "float16": "f16"}[choice.precision],
        }
        self._image_shape = (image_size, image_size, 3)
        self._compiled = self._compile(self.batch_size)
        self.lanes = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests = [self._compiled.create_infer_request() for _ in range(self.lanes)]
        self._of_thread = threading.local()
        self._single: Any = None  # the same network for one photo at a time, or False where that is another
        self._single_lock = threading.Lock()

    def run(self, batches: Iterable[tuple[Tag, Pixels]]) -> Iterator[tuple[Tag, Outputs]]:
        idle = list(self._requests)
        # The pixels stay referenced here while the engine reads them.
        running: deque[tuple[Any, Tag, int, Pixels]] = deque()
        for tag, pixels in batches:
            if not idle:
                request, done, count, _ = running.popleft()
                yield done, self._outputs(request, count)
                idle.append(request)
            padded = self._padded(pixels)
            request = idle.pop()
            request.start_async([padded], share_inputs=True)
            running.append((request, tag, len(pixels), padded))
        while running:
            request, done, count, _ = running.popleft()
            yield done, self._outputs(request, count)

    def infer(self, pixels: Pixels) -> Outputs:
        # A batch of one takes a quarter of the time of a padded one: who is alone is not kept waiting.
        if len(pixels) == self.batch_size or not self._has_single():
            return self._inferred(self._compiled, self._padded(pixels), len(pixels))
        parts = [self._inferred(self._single, image[None], 1) for image in pixels]
        return [np.concatenate(rows) for rows in zip(*parts, strict=True)]

    def _inferred(self, compiled: Any, batch: Pixels, count: int) -> Outputs:
        # A thread keeps requests of its own, because one request computes one batch at a time.
        requests = self._of_thread.__dict__
        name = "whole" if compiled is self._compiled else "single"
        if name not in requests:
            requests[name] = compiled.create_infer_request()
        requests[name].start_async([batch], share_inputs=True)
        return self._outputs(requests[name], count)

    def _has_single(self) -> bool:
        """Say whether the network for one photo, compiled at the first call, gives the same to the bit."""
        with self._single_lock:
            if self._single is None:
                self._single = self._compile(1)
                image = np.random.default_rng(0).integers(0, 256, (1, *self._image_shape), np.uint8)
                alone = self._inferred(self._single, image, 1)
                padded = self._inferred(self._compiled, self._padded(image), 1)
                if not all(np.array_equal(one, other) for one, other in zip(alone, padded, strict=True)):
                    self._single = False
            return self._single is not False

    def _compile(self, batch_size: int) -> Any:
        core = openvino_without_telemetry().Core()
        model = core.read_model(self._file)
        model.reshape([batch_size, *self._image_shape])
        if self._outputs_kept is not None:
            model = openvino_without_telemetry().Model(
                [model.get_results()[number] for number in self._outputs_kept], model.get_parameters()
            )
        return core.compile_model(model, "CPU", self._hints)

    def _padded(self, pixels: Pixels) -> Pixels:
        # Every request has the full batch's shape: a part of a batch is padded, so that nothing is compiled twice and
        # a photo's numbers do not depend on its neighbours.
        return filled(pixels, self.batch_size)

    def _outputs(self, request: Any, count: int) -> Outputs:
        request.wait()
        return [request.get_output_tensor(i).data[:count].copy() for i in range(len(self._compiled.outputs))]


class _TorchEngine:
    lanes = 1  # PyTorch spreads one batch over all cores, and a GPU takes one after another

    def __init__(self, choice: EngineChoice, network: nn.Module) -> None:
        self._device = torch.device(choice.device)
        self._dtype = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[choice.precision]
        self.batch_size = 8 if choice.device == "cpu" else 64
        # A copy: the network given stays where it is, in float32.
        copied = copy.deepcopy(network).to(self._device, self._dtype)
        self._network = copied.to(memory_format=torch.channels_last)
        leave_cudnn(self._network)

    @torch.inference_mode()
    def run(self, batches: Iterable[tuple[Tag, Pixels]]) -> Iterator[tuple[Tag, Outputs]]:
        # A GPU works while the next batch is prepared: its results are fetched one batch late.
        previous: tuple[Tag, tuple[torch.Tensor, ...]] | None = None
        for tag, pixels in batches:
            outputs = self._started(pixels)
            if previous is not None:
                yield self._fetched(*previous)
            previous = (tag, outputs)
        if previous is not None:
            yield self._fetched(*previous)

    @torch.inference_mode()
    def infer(self, pixels: Pixels) -> Outputs:
        return self._fetched(None, self._started(pixels))[1]

    def _started(self, pixels: Pixels) -> tuple[torch.Tensor, ...]:
        # A GPU chooses its kernels anew for each shape of a batch, and a photo's numbers may depend on that.
        whole = pixels if self._device.type == "cpu" else filled(pixels, self.batch_size)
        images = torch.from_numpy(np.ascontiguousarray(whole)).to(self._device).permute(0, 3, 1, 2)
        outputs: tuple[torch.Tensor, ...] = self._network(images.to(self._dtype, memory_format=torch.channels_last))
        return tuple(output[: len(pixels)] for output in outputs)

    def _fetched(self, tag: Tag, outputs: tuple[torch.Tensor, ...]) -> tuple[Tag, Outputs]:
        return tag, [output.float().cpu().numpy() for output in outputs]
