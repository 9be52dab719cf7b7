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

from headstart.evaluation.calibration import calibrated_loss_and_accuracy
from headstart.network.depthwise import depthwise_without_cudnn
from headstart.photos.loading import ahead, num_workers
from headstart.training.engines import filled
from headstart.training.hardware import Hardware, hardware, num_processes, same_for_all
from headstart.training.optimisation import FineTuning
from headstart.training.probe import Floats, Labels
from headstart.training.process import large_buffers_kept
from headstart.training.progress import Epoch, Progress
from headstart.training.state import State
from headstart.training.trainer import Trainer

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
    training = Trainer(suffix, settings, where, math.ceil(len(train) / settings.batch_size))
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
    training = Trainer(copied, settings, where, steps_per_epoch=1)
    size = max(1, min(16, settings.batch_size) // num_processes())
    batch = np.arange(size), torch.zeros(size, *row_shape)
    num_classes = int(list(copied.children())[-1].get_parameter("bias").numel())
    labels, weights = np.zeros(size, np.int64), torch.ones(num_classes, device=where.device)
    steps = 1 if where.device.type == "cpu" else 20  # a GPU's take milliseconds
    seconds = []
    for number in range(2):  # the first one allocates
        started = time.perf_counter()
        training.epoch((0.0, 0.0), number, iter([batch] * steps), labels, weights)
        seconds.append(time.perf_counter() - started)
    return steps * size * num_processes() / seconds[1]


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
    return ahead(shares, lambda photos: (photos, train.take(photos, views[photos])), window=num_workers() + 1)


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
    window = min(num_workers() + 1, 8)  # of pixels, 64 rows are 38 MB
    on_cpu = where.device.type == "cpu"
    with depthwise_without_cudnn(suffix):
        for batch in ahead(chunks, lambda chunk: torch.from_numpy(rows.take(chunk).astype(np.float32)), window):
            for piece in torch.split(batch, max(8, _VALUES_AT_ONCE // batch[0].numel()) if on_cpu else _ROWS_AT_ONCE):
                # A GPU chooses its kernels anew for each shape of a batch: a last, smaller one is filled up.
                placed = where.place(piece if on_cpu else torch.from_numpy(filled(piece.numpy(), _ROWS_AT_ONCE)))
                yield suffix(placed)[: len(piece)].float().cpu().numpy()
