"""Frozen batch normalisation folded into the convolution before it, for as long as a network trains.

Frozen, a BatchNorm is a multiplication and an addition per channel with constants, and convolving with multiplied
kernels is the same function with the same gradients. Its own backward pass, which takes a quarter of a training step on
a CPU (docs/experiments.md), then does not happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.padding import pad_same
from torch import nn
from torch.nn import functional as F


@contextmanager
def frozen_batch_norm_folded(network: nn.Module) -> Iterator[None]:
    """Fold every frozen BatchNorm that follows a convolution, on a CPU, until the context ends.

    Frozen are those whose parameters need no gradient. Parameters, buffers and their names stay what they are: only
    what the two modules do when called is replaced. On other devices nothing changes.
    """
    pairs = [(conv, norm) for conv, norm in _convolutions_with_their_norm(network) if _is_frozen_on_cpu(norm)]
    for conv, norm in pairs:
        scale = (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).detach()
        shift = (norm.bias - norm.running_mean * scale).detach()
        conv.forward = partial(_scaled_convolution, conv, scale.reshape(-1, 1, 1, 1), shift)
        norm.forward = nn.Sequential(norm.drop, norm.act).forward
    try:
        yield
    finally:
        for module in (module for pair in pairs for module in pair):
            del module.forward  # the class's own is found again


def _convolutions_with_their_norm(network: nn.Module) -> Iterator[tuple[Any, Any]]:
    """List convolutions that feed a BatchNorm: in timm's blocks, the child right before it."""
    for module in network.modules():
        children = [child for child in module.children() if not isinstance(child, nn.Identity)]
        for conv, norm in zip(children, children[1:], strict=False):
            if isinstance(conv, nn.Conv2d) and conv.bias is None and isinstance(norm, BatchNormAct2d):
                yield conv, norm


def _is_frozen_on_cpu(norm: nn.Module) -> bool:
    return all(not value.requires_grad and value.device.type == "cpu" for value in norm.parameters())


def _scaled_convolution(conv: Any, scale: torch.Tensor, shift: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if isinstance(conv, Conv2dSame):
        x = pad_same(x, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
    return F.conv2d(x, conv.weight * scale, shift, conv.stride, conv.padding, conv.dilation, conv.groups)
