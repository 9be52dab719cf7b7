"""Training a suffix of a network, from stored activations or, where it is the whole network, from pixels.

Fine-tuning starts from the probe (LP-FT, Kumar et al., 2022) with every BatchNorm frozen; training from scratch
starts from random weights. Every epoch takes one view of each photo, drawn by seed and epoch. All randomness of an
epoch comes from (seed, epoch), so a run that resumes at an epoch's start ends where an uninterrupted one would have.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from headstart.evaluation.calibration import calibrated_loss_and_accuracy
from headstart.network.cut import set_trainable
from headstart.network.folding import frozen_batch_norm_folded
from headstart.photos.loading import ahead
from headstart.training.hardware import Hardware, hardware, num_processes, same_for_all
from headstart.training.optimisation import FineTuning, optimiser_of, schedule, with_rates_for
from headstart.training.probe import Floats, Labels
from headstart.training.process import large_buffers_kept
from headstart.training.progress import Epoch, Progress
from headstart.training.state import State

# On a CPU, of a batch whose photos have more values each than this, so many pass forward and backward at once: what is
# kept for the gradients is half as much for the same speed (benchmarks/README.md).
_LARGE_ROW, _PIECE_SIZE = 100_000, 8
# Without gradients nothing is kept, but a layer's output alone is large. On a CPU, so many rows pass forward at once
# that they have this many values together, 8 at least: 8 photos of 224 pixels, as fast as 64 (benchmarks/README.md).
_ROWS_AT_ONCE, _VALUES_AT_ONCE = 64, 1_200_000


class Rows(Protocol):
    """Photos' activations, in order."""

    def __len__(self) -> int: ...

    def take(self, indices: npt.NDArray[np.int64] | slice, /) -> npt.NDArray[Any]:
        """Bring some of them into memory, as (n, *row shape)."""
        ...


class TrainingRows(Protocol):
    """The training photos' views, stored or made anew."""

    def __len__(self) -> int: ...

    def draw_views(self, epoch: int, draw: np.random.Generator) -> npt.NDArray[np.int64]:
        """Choose a view of each photo for an epoch, counted from 0."""
        ...

    def take(self, photos: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return (n, *row shape) float32: photo photos[i] in view views[i]."""
        ...


class ViewRows:
    """The stored views of the training photos."""

    def __init__(self, views: Sequence[Rows]) -> None:
        self._views = views

    def __len__(self) -> int:
        return len(self._views[0])

    def draw_views(self, epoch: int, draw: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw one of the stored views for each photo."""
        return draw.integers(0, len(self._views), len(self))

    def take(self, photos: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return (n, *row shape) float32 activations: photo photos[i] in view views[i]."""
        out: Floats | None = None
        for view in np.unique(views):
            here = views == view
            rows = self._views[view].take(photos[here])
            if out is None:
                out = np.empty((len(photos), *rows.shape[1:]), np.float32)
            out[here] = rows
        return torch.from_numpy(out)


@large_buffers_kept()
def fine_tune(
    suffix: nn.Module,
    train: TrainingRows,
    train_labels: Labels,
    validation: Rows | None,
    validation_labels: Labels,
    weights: Floats,
    settings: FineTuning,
    seed: int,
    checkpoint: Path,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[State, list[Epoch]]:
    """Train a suffix in place and return its state at the epoch that is kept.

    Args:
        suffix: ends in the classifier; its weights now are where training starts.
        train: the training photos' views.
        train_labels: (n,) class indices.
        validation: the validation photos' activations in view 0; None to train without looking, which keeps the
            last epoch.
        validation_labels: (m,) class indices.
        weights: (num_classes,) a weight per class in the loss.
        settings: see `FineTuning`.
        seed: the recipe's seed.
        checkpoint: a file to resume from, rewritten after every epoch.
        on_epoch: called with each finished epoch, also with those read from the checkpoint.

    Returns:
        The kept state (of what training changes; the best epoch is the one of least loss on validation), and every
        epoch.
    """
    where = hardware(settings.precision)
    suffix.to(where.device).to(memory_format=torch.channels_last)
    training = _Training(suffix, settings, where, math.ceil(len(train) / settings.batch_size))
    progress = Progress(training.changing, training.optimiser, training.averaged, settings, checkpoint)
    progress.restore()
    for epoch in progress.history:
        on_epoch(epoch)
    class_weights = torch.from_numpy(weights).to(where.device)
    while not progress.finished():
        started = time.perf_counter()
        number = len(progress.history)
        draw = np.random.default_rng([seed, number])
        torch.manual_seed(int(draw.integers(2**31)))
        views = train.draw_views(number, draw)
        batches = _batches(train, draw.permutation(len(train)), views, settings.batch_size, where)
        part = progress.position, progress.next_position()
        loss, accuracy = training.epoch(part, number, batches, train_labels, class_weights)
        validated = math.nan, math.nan
        if validation is not None:
            validated = calibrated_loss_and_accuracy(suffix_logits(training.measured, validation), validation_labels)
        rate, seconds = training.last_learning_rate, time.perf_counter() - started
        progress.add(same_for_all(Epoch(number + 1, loss, accuracy, *validated, rate, seconds)), part[1])
        on_epoch(progress.history[-1])
    return progress.kept, progress.history


@large_buffers_kept()
def training_speed(suffix: nn.Module, row_shape: tuple[int, ...], settings: FineTuning) -> float:
    """Measure photos/s of training a suffix that is left as it was.

    Args:
        suffix: ends in the classifier.
        row_shape: of one photo's activations.
        settings: their batch size and precision count.
    """
    where = hardware(settings.precision)
    copied = copy.deepcopy(suffix).to(where.device).to(memory_format=torch.channels_last)
    training = _Training(copied, settings, where, steps_per_epoch=1)
    size = max(1, min(16, settings.batch_size) // num_processes())
    batch = np.arange(size), torch.zeros(size, *row_shape)
    num_classes = int(list(copied.children())[-1].get_parameter("bias").numel())
    labels, weights = np.zeros(size, np.int64), torch.ones(num_classes, device=where.device)
    seconds = []
    for number in range(2):  # the first one allocates
        started = time.perf_counter()
        training.epoch((0.0, 0.0), number, iter([batch]), labels, weights)
        seconds.append(time.perf_counter() - started)
    return size * num_processes() / seconds[1]


def _batches(
    train: TrainingRows,
    order: npt.NDArray[np.int64],
    views: npt.NDArray[np.int64],
    batch_size: int,
    where: Hardware,
) -> Iterator[tuple[npt.NDArray[np.int64], torch.Tensor]]:
    """Yield batches as (photos, activations), the next ones being read or decoded meanwhile."""
    shares = [where.share(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    # A last batch of fewer photos than processes would leave one of them with nothing to do.
    shares = [photos for photos in shares if len(photos) >= 1]
    return ahead(shares, lambda photos: (photos, train.take(photos, views[photos])), window=3)


@torch.inference_mode()
def suffix_logits(suffix: nn.Module, rows: Rows) -> Floats:
    """Return the (n, num_classes) float32 logits of activations, in evaluation mode."""
    return np.concatenate(list(suffix_outputs(suffix, rows)))


@torch.inference_mode()
def suffix_outputs(suffix: nn.Module, rows: Rows) -> Iterator[Floats]:
    """Yield the float32 outputs of a part of the network on activations, batch after batch, in evaluation mode."""
    suffix.eval()
    where = Hardware(next(suffix.parameters()).device, None)
    chunks = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(rows), _ROWS_AT_ONCE)]
    for batch in ahead(chunks, lambda chunk: torch.from_numpy(rows.take(chunk).astype(np.float32)), window=3):
        fitting = max(8, _VALUES_AT_ONCE // batch[0].numel()) if where.device.type == "cpu" else len(batch)
        for piece in torch.split(batch, fitting):
            yield suffix(where.place(piece)).float().cpu().numpy()


class _Training:
    """A suffix with its optimiser and average, and one epoch over it.

    `changing` is everything that training changes, by name; `measured` the module that is validated: the suffix, or
    the average of its weights.
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
        self._forward = where.forward_of(suffix, settings.epochs * steps_per_epoch)
        # What is kept for the gradients grows with the photos at once. BatchNorm in training sees the whole batch.
        self._in_pieces = where.device.type == "cpu" and num_processes() == 1 and not settings.train_batch_norm
        self._mix = _mixing(settings, list(suffix.children())[-1])
        self.last_learning_rate = settings.learning_rate

    @property
    def measured(self) -> nn.Module:
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
        """Train one epoch, the part of the schedule from one share to another; return its mean loss and accuracy."""
        settings, where = self._settings, self._where
        set_trainable(self._suffix, settings.train_batch_norm)
        parameters = [value for value in self.changing.values() if value.requires_grad]
        loss_sum, correct, seen = 0.0, 0, 0
        with frozen_batch_norm_folded(self._suffix), where.products():
            for step, (photos, batch) in enumerate(batches):
                scale = schedule(part[0] + (part[1] - part[0]) * step / self._steps_per_epoch, settings)
                for group in self.optimiser.param_groups:
                    group["lr"] = group["peak"] * scale
                target = torch.from_numpy(labels[photos]).to(where.device)
                self.optimiser.zero_grad()
                loss, logits = self._gradients(*self._mix(where.place(batch), target), class_weights)
                self._scaler.unscale_(self.optimiser)
                nn.utils.clip_grad_norm_(parameters, 1.0)
                self._scaler.step(self.optimiser)
                self._scaler.update()
                if self._average:
                    self._average.update(self._suffix, step=number * self._steps_per_epoch + step)
                loss_sum += loss * len(photos)
                correct += int((logits.argmax(dim=1) == target).sum())
                seen += len(photos)
        self.last_learning_rate = settings.learning_rate * scale
        return loss_sum / seen, correct / seen

    def _gradients(
        self, inputs: torch.Tensor, target: torch.Tensor, class_weights: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        """Add a batch's gradients to the parameters', piece by piece; return its mean loss and its logits."""
        # As cross_entropy's own mean: over the weights of the classes given, or over mixed photos.
        total = class_weights[target].sum() if target.dim() == 1 else len(target)
        loss, logits = 0.0, []
        size = _PIECE_SIZE if self._in_pieces and inputs[0].numel() > _LARGE_ROW else len(inputs)
        for piece, wanted in zip(torch.split(inputs, size), torch.split(target, size), strict=True):
            with self._where.autocast():
                found = self._forward(piece).float()
            losses = F.cross_entropy(
                found, wanted, class_weights, reduction="sum", label_smoothing=self._settings.label_smoothing
            )
            self._scaler.scale(losses / total).backward()  # type: ignore[no-untyped-call]
            loss += float(losses.detach()) / float(total)
            logits.append(found.detach())
        return loss, torch.cat(logits)


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
