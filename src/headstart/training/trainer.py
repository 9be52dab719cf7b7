"""Training a network for an epoch, batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from headstart.network.cut import set_trainable
from headstart.network.depthwise import depthwise_without_cudnn
from headstart.network.folding import frozen_batch_norm_folded
from headstart.training.hardware import Hardware, num_processes
from headstart.training.lamb import Lamb
from headstart.training.optimisation import FineTuning, optimiser_of, schedule, with_rates_for
from headstart.training.probe import Labels
from headstart.training.recording import RecordedStep
from headstart.training.state import State

# On a CPU, of a batch whose photos have more values each than this, so many pass forward and backward at once: what is
# kept for the gradients is half as much for the same speed (benchmarks/README.md).
_LARGE_ROW, _PIECE_SIZE = 100_000, 8


class Trainer:
    """A suffix with its optimiser and average, and one epoch over it.

    `changing` is everything that training changes, by name; `measured` the module that is validated: the suffix, or
    the average of its weights.

    Args:
        suffix: ends in the classifier; on the hardware's device.
        settings: see `FineTuning`.
        where: the hardware.
        steps_per_epoch: the number of batches of an epoch.
    """

    def __init__(self, suffix: nn.Module, settings: FineTuning, where: Hardware, steps_per_epoch: int) -> None:
        self._where = where
        self._steps_per_epoch = steps_per_epoch
        self._suffix = suffix
        self.changing = set_trainable(suffix, settings.train_batch_norm)
        self._settings = settings = with_rates_for(self.changing, settings)
        self.optimiser = optimiser_of(suffix, settings)
        self._scaler = where.scaler()
        self._average: Any = None
        if settings.ema_decay:
            from timm.utils.model_ema import ModelEmaV3

            self._average = ModelEmaV3(suffix, settings.ema_decay, use_warmup=True)
        self._forward = where.forward_of(suffix)
        # What is kept for the gradients grows with the photos at once. BatchNorm in training sees the whole batch.
        self._in_pieces = where.device.type == "cpu" and num_processes() == 1 and not settings.train_batch_norm
        self._mix = _mixing(settings, list(suffix.children())[-1])
        # Of an epoch: its losses and its right answers. On the device, because reading them would wait for it.
        self._sums = torch.zeros(2, device=where.device)
        self._class_weights = torch.ones(0, device=where.device)
        self.take_step: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None] = self.step
        if self._records():
            self.take_step = RecordedStep(self.step, self._changed)
        self.last_learning_rate = settings.learning_rate

    @property
    def measured(self) -> nn.Module:
        """The suffix, or the average of its weights."""
        module: nn.Module = self._average.module if self._average else self._suffix
        return module

    def averaged(self) -> State:
        """Return the averages of what training changes, by name; nothing where weights are not averaged."""
        if not self._average:
            return {}
        state = self._average.module.state_dict()
        return {name: state[name] for name in self.changing}

    def epoch(
        self,
        part: tuple[float, float],
        number: int,
        batches: Iterator[tuple[npt.NDArray[np.int64], torch.Tensor]],
        labels: Labels,
        class_weights: torch.Tensor,
    ) -> tuple[float, float]:
        """Train one epoch, the part of the schedule from one share to another; return its mean loss and accuracy.

        Args:
            part: the shares of the schedule.
            number: of the epoch, from 0.
            batches: (photos, (n, *row shape) float32 activations) each.
            labels: of all photos.
            class_weights: (num_classes,) a weight per class in the loss, on the device.
        """
        settings, where, seen = self._settings, self._where, 0
        set_trainable(self._suffix, settings.train_batch_norm)
        self._sums.zero_()
        self._class_weights = class_weights
        with frozen_batch_norm_folded(self._suffix), depthwise_without_cudnn(self._suffix), where.products():
            for step, (photos, batch) in enumerate(batches):
                scale = schedule(part[0] + (part[1] - part[0]) * step / self._steps_per_epoch, settings)
                self._set_rates(scale)
                target = torch.from_numpy(labels[photos]).to(where.device)
                inputs, mixed = self._mix(where.place(batch), target)
                self.take_step(inputs, mixed, torch.ones(len(photos), device=where.device))
                if self._average:
                    self._average.update(self._suffix, step=number * self._steps_per_epoch + step)
                seen += len(photos)
        self.last_learning_rate = settings.learning_rate * scale
        loss_sum, correct = self._sums.tolist()
        return loss_sum / seen, correct / seen

    def step(self, inputs: torch.Tensor, target: torch.Tensor, counts: torch.Tensor) -> None:
        """Take the optimiser's step on a batch, and add its losses and its right answers to the epoch's.

        Args:
            inputs: (n, *row shape) float32 activations, on the device.
            target: (n,) class indices, or (n, num_classes) shares of the classes.
            counts: (n,) 1 for each row that counts, 0 for what only fills the batch.
        """
        self.optimiser.zero_grad()
        hard = target.dim() == 1
        # As cross_entropy's own mean: over the weights of the classes given, or over mixed photos.
        total = ((self._class_weights[target] if hard else 1) * counts).sum()
        size = _PIECE_SIZE if self._in_pieces and inputs[0].numel() > _LARGE_ROW else len(inputs)
        for piece, wanted, weight in zip(
            *(torch.split(values, size) for values in (inputs, target, counts)), strict=True
        ):
            with self._where.autocast():
                logits = self._forward(piece).float()
            losses = F.cross_entropy(
                logits, wanted, self._class_weights, reduction="none", label_smoothing=self._settings.label_smoothing
            )
            loss = (losses * weight).sum() / total
            self._scaler.scale(loss).backward()
            right = logits.argmax(dim=1) == (wanted if hard else wanted.argmax(dim=1))
            self._sums += torch.stack((loss.detach() * counts.sum(), (right * weight).sum()))
        self._scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_([value for value in self.changing.values() if value.requires_grad], 1.0)
        self._scaler.step(self.optimiser)
        self._scaler.update()

    def _set_rates(self, scale: float) -> None:
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(group["peak"] * scale)
            else:
                group["lr"] = group["peak"] * scale

    def _records(self) -> bool:
        """Say whether a step never waits for the device, and filling a batch up changes nothing of it."""
        waits = self._scaler.is_enabled() or self._average is not None or not isinstance(self.optimiser, Lamb)
        on_one_gpu = self._where.device.type == "cuda" and num_processes() == 1
        return on_one_gpu and not waits and not self._settings.train_batch_norm

    def _changed(self) -> list[torch.Tensor]:
        """Return every tensor that a recorded step changes."""
        moments = [value for state in self.optimiser.state.values() for value in state.values()]
        counted = [group["step"] for group in self.optimiser.param_groups]
        return [*self.changing.values(), *moments, *counted, self._sums]


def _mixing(settings: FineTuning, classifier: nn.Module) -> Callable[[torch.Tensor, torch.Tensor], tuple[Any, Any]]:
    """Return what mixes a batch with itself: MixUp (Zhang et al., 2018), CutMix (Yun et al., 2019), or nothing."""
    if not settings.mixup and not settings.cutmix:
        return lambda batch, target: (batch, target)
    from torchvision.transforms import v2

    num_classes = int(classifier.get_parameter("bias").numel())
    mixes: list[Any] = []
    if settings.mixup:
        mixes.append(v2.MixUp(alpha=settings.mixup, num_classes=num_classes))
    if settings.cutmix:
        mixes.append(v2.CutMix(alpha=settings.cutmix, num_classes=num_classes))
    return v2.RandomChoice(mixes)
