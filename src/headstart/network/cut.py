"""Cutting a network at a block boundary, and freezing what lies before it.

A network is a row of units: the stem, each block, and the head convolution; pooling and the classifier
follow. Boundary k lies after the first k units: units before it are the frozen prefix, units after it the
suffix, which may train. Boundary 0 lies at the pixels, before they are normalised; the last one, `last_boundary`,
at the pooled features. Blocks are never cut in two, because their shortcuts span them.
"""

from __future__ import annotations

import torch
from torch import nn

from headstart.errors import HeadstartError
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


def boundary_of(network: nn.Module, unfreeze: int | str) -> int:
    """Return the boundary that leaves a part of the network to train.

    Args:
        network: a timm EfficientNet.
        unfreeze: a number of blocks, counted from the end, which train with the head convolution (0: neither); `all`;
            or the name of the first part that trains: `stage1`, `stage2` and so on, or `head` for the head convolution.

    Raises:
        HeadstartError: naming the valid names.
    """
    if isinstance(unfreeze, int):
        return boundary_before_last_blocks(network, unfreeze) if unfreeze else last_boundary(network)
    first = {"all": 0, "head": last_boundary(network) - 1}
    for number, (name, _) in enumerate(units(network)):
        if name.startswith("blocks.") and name.endswith(".0"):
            first[f"stage{int(name.split('.')[1]) + 1}"] = number
    if unfreeze not in first:
        raise HeadstartError(
            f"--unfreeze {unfreeze}: expected a number of blocks, or one of {', '.join(sorted(first))}.",
            "Whole blocks train or stay frozen, because their shortcuts span them.",
        )
    return first[unfreeze]


def prefix(network: nn.Module, boundary: int, preprocessing: Preprocessing) -> nn.Sequential:
    """Return what turns (n, 3, h, w) pixels in 0-255 into the activations at a boundary."""
    if boundary == 0:
        return nn.Sequential()
    normalise = Normalise(preprocessing)
    if boundary == last_boundary(network):
        return nn.Sequential(normalise, *pooled(network, 0)).eval()
    return nn.Sequential(normalise, *_units_between(network, 0, boundary)).eval()


def pooled(network: nn.Module, boundary: int) -> nn.Sequential:
    """Return what turns the activations at a boundary into the (n, num_features) pooled features."""
    return nn.Sequential(
        *_units_between(network, boundary, last_boundary(network)), network.get_submodule("global_pool")
    )


def suffix(network: nn.Module, boundary: int, preprocessing: Preprocessing, dropout_rate: float = 0.0) -> nn.Sequential:
    """Return what turns the activations at a boundary into logits; its last child is the classifier.

    At the last boundary the activations are the pooled features already, at boundary 0 they are pixels in 0-255.
    """
    head = (nn.Dropout(dropout_rate), network.get_submodule("classifier"))
    if boundary == last_boundary(network):
        return nn.Sequential(*head)
    normalise = (Normalise(preprocessing),) if boundary == 0 else ()
    return nn.Sequential(*normalise, *pooled(network, boundary), *head)


def _units_between(network: nn.Module, start: int, end: int) -> list[nn.Module]:
    return [module for _, module in units(network)[start:end]]


def set_trainable(suffix: nn.Module, train_batch_norm: bool = False) -> dict[str, torch.Tensor]:
    """Put a suffix in training mode, and return what training changes, by name: parameters and statistics.

    Unless told to train, every BatchNorm keeps its statistics and its affine parameters, in evaluation mode: small
    batches of few classes would wreck the statistics. Dropout and drop path are active.
    """
    suffix.train().requires_grad_(True)
    statistics: dict[str, torch.Tensor] = {}
    for name, module in suffix.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if train_batch_norm:
            statistics |= {f"{name}.{kind}": value for kind, value in module.named_buffers()}
        else:
            module.eval().requires_grad_(False)
    parameters = {name: parameter for name, parameter in suffix.named_parameters() if parameter.requires_grad}
    return {**parameters, **statistics}


class ActivationsAt(nn.Module):
    """The frozen network with an output for each of some boundaries, computed in one pass.

    Its outputs are the activations at `boundaries`, in rising order; at the last boundary, the pooled features.
    """

    def __init__(self, network: nn.Module, boundaries: tuple[int, ...], preprocessing: Preprocessing) -> None:
        super().__init__()
        steps: list[nn.Module] = [prefix(network, first, preprocessing) for first in boundaries[:1]]
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


class InFloat16(nn.Module):
    """A network whose outputs come as float16, clipped to its range: the form in which they are stored.

    An engine converts them on its way, several times as fast as NumPy does afterwards.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the network's outputs."""
        limit = torch.finfo(torch.float16).max
        return tuple(output.clamp(-limit, limit).half() for output in self.network(pixels))
