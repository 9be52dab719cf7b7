"""The settings of training, and what follows from them: the optimiser, its learning rates and their schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from headstart.choices import Keep, Optimiser, Precision, Schedule
from headstart.training.lamb import Lamb
from headstart.training.state import State

# LAMB changes every layer by the same share of its weights, and what the layers do to the output adds up: with more of
# them than this, the share is less. At the full rate the 50 layers of all of Lite0 diverge (docs/experiments.md).
_LAYERS_AT_FULL_RATE = 17


@dataclass(frozen=True)
class FineTuning:
    """The settings of training; learning rates are peaks, reached after warm-up, before cosine decay.

    `learning_rate` is for the blocks and the head convolution, `head_learning_rate` for the classifier; each unit
    further from the classifier gets `layer_decay` times the rate of the one after it. With LAMB, where more than 17
    layers train, both rates are less by as many times as there are more layers. `mixup` and `cutmix` are the
    parameters alpha of their Beta distributions, 0 for none. `ema_decay` averages the weights exponentially, and the
    average is what is measured and kept; 0 for none. Training stops early when the validation loss has not improved
    for `patience` epochs. Where `epochs` would take more than `time_limit` seconds there are fewer, one at least, and
    the learning rate falls sooner, so that it has fallen when time is up. `keep` is the best epoch on validation, or
    the last.
    """

    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 2e-3
    head_learning_rate: float = 2e-3
    layer_decay: float = 1.0
    optimiser: Optimiser = "lamb"
    schedule: Schedule = "cosine"
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    warmup_epochs: float = 1.0
    ema_decay: float = 0.0
    train_batch_norm: bool = False
    patience: int = 4
    time_limit: float | None = None
    keep: Keep = "best"
    precision: Precision = "auto"


def with_rates_for(changing: State, settings: FineTuning) -> FineTuning:
    """Return the settings with the learning rates that the number of layers which train asks for."""
    layers = sum(value.dim() > 1 for value in changing.values())
    if settings.optimiser != "lamb" or layers <= _LAYERS_AT_FULL_RATE:
        return settings
    share = _LAYERS_AT_FULL_RATE / layers
    rates = share * settings.learning_rate, share * settings.head_learning_rate
    return replace(settings, learning_rate=rates[0], head_learning_rate=rates[1])


def optimiser_of(suffix: nn.Module, settings: FineTuning) -> torch.optim.Optimizer:
    """Make the optimiser, with weight decay on matrices and kernels only and a learning rate for each unit."""
    units = [unit for unit in suffix.children() if any(value.requires_grad for value in unit.parameters())]
    # As few groups as can be: each takes its step at once.
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for depth, unit in enumerate(reversed(units)):
        peak = settings.learning_rate * settings.layer_decay ** (depth - 1) if depth else settings.head_learning_rate
        for value in unit.parameters():
            if value.requires_grad:
                members.setdefault((peak, settings.weight_decay if value.dim() > 1 else 0.0), []).append(value)
    groups = [
        {"params": values, "lr": peak, "peak": peak, "weight_decay": decay} for (peak, decay), values in members.items()
    ]
    return named_optimiser(settings.optimiser, groups)


def named_optimiser(name: Optimiser, groups: Any, learning_rate: float = 1e-3) -> torch.optim.Optimizer:
    """Make an optimiser by name; Adam with Keras's epsilon, SGD with Nesterov's momentum of 0.9."""
    if name == "lamb":
        return Lamb(groups, learning_rate)
    if name == "adam":
        return torch.optim.Adam(groups, learning_rate, eps=1e-7)
    if name == "sgd":
        return torch.optim.SGD(groups, learning_rate, momentum=0.9, nesterov=True)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, learning_rate, alpha=0.9, eps=1e-7)
    return torch.optim.AdamW(groups, learning_rate)


def schedule(position: float, settings: FineTuning) -> float:
    """Return the share of the peak learning rate at a share of training: linear warm-up, then a cosine or the peak."""
    warmup = min(settings.warmup_epochs / settings.epochs, 0.5)
    if position < warmup:
        # Never quite zero, where a step would be lost.
        return max(position / warmup, 0.02)
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (position - warmup) / (1 - warmup)))
