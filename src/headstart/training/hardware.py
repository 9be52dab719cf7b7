"""The hardware that a network trains on: one processor or GPU, or several processes with one each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.choices import Precision

Value = TypeVar("Value")


def num_processes() -> int:
    """Return how many processes `accelerate launch` (or torchrun) has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Return which of these processes this is, from 0, which writes the run's files."""
    return int(os.environ.get("RANK", "0"))


def wait_for_all() -> None:
    """Wait until every process has come to this line."""
    if num_processes() > 1:
        _accelerator().wait_for_everyone()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process do something while the others wait, who then find it done."""
    if process_number() > 0:
        wait_for_all()
    yield
    if process_number() == 0:
        wait_for_all()


def same_for_all(value: Value) -> Value:
    """Return the first process's value in every process; it must pickle."""
    if num_processes() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    _accelerator()
    values = [value]
    broadcast_object_list(values)
    return values[0]


def _accelerator() -> Any:
    """Return accelerate's object for this process; it is a singleton underneath."""
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.cuda.is_available())


@dataclass(frozen=True)
class Hardware:
    """A device, and the precision of the forward pass on it: None for float32 throughout.

    With `bfloat16_products` float32 convolutions multiply in bfloat16, forward and backward, and add in float32.
    """

    device: torch.device
    autocast_dtype: torch.dtype | None
    bfloat16_products: bool = False

    @contextmanager
    def products(self) -> Iterator[None]:
        """Multiply in this hardware's precision for as long as the context lasts."""
        if not self.bfloat16_products:
            yield
            return
        backend: Any = torch.backends.mkldnn
        convolutions = backend.conv
        before, convolutions.fp32_precision = convolutions.fp32_precision, "bf16"
        try:
            yield
        finally:
            convolutions.fp32_precision = before

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        if self.autocast_dtype is None:
            return nullcontext()
        # Without its cache of converted weights, which each pass uses once, and which a recording must not share.
        return torch.autocast(self.device.type, self.autocast_dtype, cache_enabled=False)

    def scaler(self) -> torch.amp.GradScaler:
        """Return what keeps float16 gradients from vanishing; it does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.autocast_dtype is torch.float16)

    def forward_of(self, network: nn.Module) -> nn.Module:
        """Return what a training step calls in place of the network, whose parameters it shares.

        With several processes, their gradients are averaged.
        """
        if num_processes() == 1:
            return network
        prepared: nn.Module = _accelerator().prepare_model(network)
        return prepared

    def share(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return this process's part of a batch."""
        return np.array_split(photos, num_processes())[process_number()]

    def place(self, batch: torch.Tensor) -> torch.Tensor:
        """Move a float32 batch to the device; images in channels-last order, which convolutions are fastest in."""
        if self.device.type == "cuda":
            batch = batch.pin_memory()  # so that the copy need not wait for the step before it
        placed = batch.to(self.device, non_blocking=True)
        return placed.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else placed


def hardware(precision: Precision = "auto") -> Hardware:
    """Find the hardware of this process.

    Args:
        precision: of the forward pass. `auto` is bfloat16, else float16, on a GPU. On a CPU it is float32, which trains
            faster than autocast to bfloat16 does even on processors that have that (docs/experiments.md), with products
            in bfloat16 where the processor has a unit for them.
    """
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        automatic = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    elif torch.backends.mps.is_available():
        device, automatic = torch.device("mps"), torch.float16
    else:
        device, automatic = torch.device("cpu"), None
    chosen = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16, "auto": automatic}[precision]
    return Hardware(device, chosen, precision == "auto" and device.type == "cpu" and _multiplies_bfloat16())


def _multiplies_bfloat16() -> bool:
    """Say whether the CPU has a matrix unit for bfloat16 (AMX), and PyTorch the switch to use it (since 2.9)."""
    has_switch = hasattr(getattr(torch.backends.mkldnn, "conv", None), "fp32_precision")
    return has_switch and bool(_capabilities().get("amx_bf16"))


def multiplies_int8() -> bool:
    """Say whether the CPU has instructions for products of 8-bit integers (VNNI), as far as PyTorch can tell."""
    return any(_capabilities().get(name) for name in ("avx_vnni", "avx512_vnni"))


def _capabilities() -> dict[str, Any]:
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found
