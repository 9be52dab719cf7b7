"""Cutting a network at a block boundary, and freezing what lies before it.

A network is a row of units: the stem, each block, and the head convolution; pooling and the classifier
follow. Boundary k lies after the first k units: units before it are the frozen prefix, units after it the
suffix, which may train. Boundary 0 lies at the pixels; the last one, `last_boundary`, at the pooled
features. Blocks are never cut in two, because their shortcuts span them.
"""

from __future__ import annotations

import torch
from torch import nn

from headstart.network.backbones import Normalise
from headstart.photos.views import Preprocessing


def units(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """List the units of a timm EfficientNet in order, by name; they share the network's parameters."""
    named: list[tuple[str, nn.Module]] = [("stem", _joined(network, "conv_stem", "bn1"))]
    for stage_name, stage in network.get_submodule("blocks").named_children():
        named.extend((f"blocks.{stage_name}.{name}", block) for name, block in stage.named_children())
    named.append(("head", _joined(network, "conv_head", "bn2")))
    return named


def _joined(network: nn.Module, *names: str) -> nn.Sequential:
    return nn.Sequential(*(network.get_submodule(name) for name in names))


def last_boundary(network: nn.Module) -> int:
    """Return the boundary at the pooled features, beyond the last unit."""
    return len(units(network))


def boundary_before_last_blocks(network: nn.Module, blocks: int) -> int:
    """Return the boundary that leaves the last `blocks` blocks and the head convolution to train."""
    return max(0, last_boundary(network) - 1 - blocks)


def prefix(network: nn.Module, boundary: int, preprocessing: Preprocessing) -> nn.Sequential:
    """Return what turns (n, 3, h, w) pixels in 0-255 into the activations at a boundary."""
    normalise = Normalise(preprocessing)
    if boundary == last_boundary(network):
        return nn.Sequential(normalise, *pooled(network, 0)).eval()
    return nn.Sequential(normalise, *_units_between(network, 0, boundary)).eval()


def pooled(network: nn.Module, boundary: int) -> nn.Sequential:
    """Return what turns the activations at a boundary into the (n, num_features) pooled features."""
    return nn.Sequential(
        *_units_between(network, boundary, last_boundary(network)), network.get_submodule("global_pool")
    )


def suffix(network: nn.Module, boundary: int, dropout_rate: float = 0.0) -> nn.Sequential:
    """Return what turns the activations at a boundary into logits.

    At the last boundary the activations are the pooled features already.
    """
    head = (nn.Dropout(dropout_rate), network.get_submodule("classifier"))
    if boundary == last_boundary(network):
        return nn.Sequential(*head)
    return nn.Sequential(*pooled(network, boundary), *head)


def _units_between(network: nn.Module, start: int, end: int) -> list[nn.Module]:
    return [module for _, module in units(network)[start:end]]


def set_trainable(suffix: nn.Module) -> list[nn.Parameter]:
    """Put a suffix in training mode with every BatchNorm frozen, and return the parameters that train.

    BatchNorm keeps its statistics and its affine parameters, in evaluation mode: small batches of few
    classes would wreck the statistics. Dropout and drop path are active.
    """
    suffix.train().requires_grad_(True)
    for module in suffix.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval().requires_grad_(False)
    return [parameter for parameter in suffix.parameters() if parameter.requires_grad]


class ActivationsAt(nn.Module):
    """The frozen network with an output for each of some boundaries, computed in one pass.

    Its outputs are the activations at `boundaries`, in rising order; at the last boundary, the pooled features.
    """

    def __init__(self, network: nn.Module, boundaries: tuple[int, ...], preprocessing: Preprocessing) -> None:
        super().__init__()
        steps: list[nn.Module] = [prefix(network, boundaries[0], preprocessing)]
        for start, end in zip(boundaries, boundaries[1:], strict=False):
            last = end == last_boundary(network)
            steps.append(pooled(network, start) if last else nn.Sequential(*_units_between(network, start, end)))
        self.steps = nn.ModuleList(steps)
        self.eval().requires_grad_(False)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Turn (n, 3, h, w) pixels in 0-255 into the activations at each boundary."""
        outputs = []
        for step in self.steps:
            pixels = step(pixels)
            outputs.append(pixels)
        return tuple(outputs)
