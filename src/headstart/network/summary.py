"""What a backbone is made of: the table of all, and one network's stages, top and what replaces it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from headstart.network.backbones import BACKBONES, TOP1_SOURCE, Backbone, build
from headstart.network.cut import boundary_of, last_boundary, units
from headstart.network.weights import where_from


@dataclass(frozen=True)
class Stage:
    """A row of a summary: some units with their output's shape, parameters, multiply-adds, and which of them train.

    `output` is (channels, height, width) for one photo.
    """

    name: str
    units: int
    trainable_units: int
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


def backbones_text() -> str:
    """Return the table of backbones as text."""
    lines = [f"{'':<7} {'pixels':>6} {'parameters':>12} {'without top':>12} {'top-1 %':>8}  {'weights':<24} here"]
    for row in BACKBONES.values():
        source, here = where_from(row)
        lines.append(
            f"{row.name:<7} {row.image_size:>6} {row.parameters:>12,} {row.parameters_without_top:>12,} "
            f"{row.top1:>8.1f}  {source:<24} {'yes' if here else 'no'}"
        )
    lines.append(f"\ntop-1: {TOP1_SOURCE}. hub: downloaded once from timm's repositories when it is asked for.")
    return "\n".join(lines)


def stages(network: nn.Module, boundary: int, image_size: int) -> list[Stage]:
    """Return a network's stages from the stem to the head convolution.

    Args:
        network: from `build`.
        boundary: units before it are frozen.
        image_size: of the photo whose shapes and multiply-adds are counted, in pixels.
    """
    rows: dict[str, list[tuple[int, tuple[int, ...], int, int]]] = {}
    activations = torch.zeros(1, 3, image_size, image_size)
    for number, (name, unit) in enumerate(units(network)):
        activations, multiply_adds = _run(unit, activations)
        stage = f"stage{int(name.split('.')[1]) + 1}" if name.startswith("blocks.") else name
        parameters = sum(value.numel() for value in unit.parameters())
        shape = tuple(activations.shape[1:])
        rows.setdefault(stage, []).append((number >= boundary, shape, parameters, multiply_adds))
    return [
        Stage(
            name=name,
            units=len(found),
            trainable_units=sum(row[0] for row in found),
            output=found[-1][1],
            parameters=sum(row[2] for row in found),
            multiply_adds=sum(row[3] for row in found),
        )
        for name, found in rows.items()
    ]


def suffix_multiply_adds(network: nn.Module, boundary: int, image_size: int) -> int:
    """Return the multiply-adds of one photo's forward pass from a boundary to the logits.

    Args:
        network: from `build`; left as it is.
        boundary: see `headstart.network.cut`.
        image_size: of the photo, in pixels.
    """
    copied = copy.deepcopy(network).cpu().eval()
    activations, counts = torch.zeros(1, 3, image_size, image_size), []
    for _, unit in units(copied):
        activations, count = _run(unit, activations)
        counts.append(count)
    return sum(counts[boundary:]) + copied.get_submodule("classifier").get_parameter("weight").numel()


def summary_text(backbone: Backbone, unfreeze: int | str, num_classes: int) -> str:
    """Return one backbone's stages as text, with the top that is removed and what replaces it."""
    network = build(backbone, num_classes)
    boundary = boundary_of(network, unfreeze)
    rows = stages(network, boundary, backbone.image_size)
    features = backbone.parameters_without_top
    in_top = int(network.get_submodule("classifier").get_parameter("weight").shape[1])
    total = sum(row.multiply_adds for row in rows)
    lines = [
        f"{backbone.name} ({backbone.timm_name}): {backbone.image_size} pixels, {total / 1e6:,.0f}M multiply-adds",
        f"--unfreeze {unfreeze}: boundary {boundary} of {last_boundary(network)}",
        "",
        f"{'':<8} {'units':>5}  {'output':<16} {'parameters':>12} {'multiply-adds':>14}  ",
    ]
    for row in rows:
        state = {0: "frozen", row.units: "trains"}.get(row.trainable_units)
        state = state or f"the last {row.trainable_units} of {row.units} train"
        shape, share = " x ".join(map(str, row.output)), row.multiply_adds / total
        lines.append(f"{row.name:<8} {row.units:>5}  {shape:<16} {row.parameters:>12,} {share:>14.1%}  {state}")
    lines += [
        "",
        f"without top: {features:,} parameters",
        f"removed top: average pool, dropout, dense {in_top:,} -> 1,000 ({in_top * 1000 + 1000:,} parameters)",
        f"in its place: average pool, dropout, dense {in_top:,} -> {num_classes:,} "
        f"({in_top * num_classes + num_classes:,} parameters): the probe, then fine-tuned",
        "BatchNorm inside the trained part stays frozen; only --weights none trains it.",
    ]
    return "\n".join(lines)


@torch.inference_mode()
def _run(unit: nn.Module, activations: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return a unit's output, and the multiply-adds of its convolutions."""
    counted = []

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        height, width = output.shape[-2:]
        counted.append(height * width * module.get_parameter("weight").numel())

    hooks = [module.register_forward_hook(count) for module in unit.modules() if isinstance(module, nn.Conv2d)]
    output: torch.Tensor = unit(activations)
    for hook in hooks:
        hook.remove()
    return output, sum(counted)
