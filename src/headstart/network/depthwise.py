"""Depthwise convolutions on a CUDA GPU.

cuDNN compiles its kernels for them, forward and backward, for each new shape of a batch: seconds for a network, before
its first step (NVIDIA/cudnn-frontend, issue 1066). PyTorch has kernels of its own, which are there already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.nn import functional as F


@contextmanager
def depthwise_without_cudnn(network: nn.Module) -> Iterator[None]:
    """Have a network's depthwise convolutions on CUDA run without cuDNN until the context ends.

    Parameters, buffers and their names stay what they are. On other devices nothing changes.
    """
    changed = leave_cudnn(network)
    try:
        yield
    finally:
        for conv in changed:
            del conv.forward  # the class's own is found again


def leave_cudnn(network: nn.Module) -> list[Any]:
    """The same for good; return the convolutions that were changed."""
    changed: list[Any] = [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels and module.weight.is_cuda
    ]
    for conv in changed:
        conv.forward = partial(_convolved, conv)
    return changed


def _convolved(conv: Any, x: torch.Tensor) -> torch.Tensor:
    if isinstance(conv, Conv2dSame):
        x = pad_same(x, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
    # In the usual order of memory, input and kernels both, or the backward pass would be cuDNN's again.
    weight = conv.weight.flatten(1).view(conv.weight.shape)
    enabled, torch.backends.cudnn.enabled = torch.backends.cudnn.enabled, False
    try:
        y = F.conv2d(x.contiguous(), weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    finally:
        torch.backends.cudnn.enabled = enabled
    return y.contiguous(memory_format=torch.channels_last)
