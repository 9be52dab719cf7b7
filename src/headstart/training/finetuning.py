"""Training a suffix of a network, from stored activations or, where it is the whole network, from pixels.

Fine-tuning starts from the probe (LP-FT, Kumar et al., 2022) with every BatchNorm frozen; training from scratch
starts from random weights. Every epoch takes one view of each photo, drawn by seed and epoch. All randomness of an
epoch comes from (seed, epoch), so a run that resumes at an epoch's start ends where an uninterrupted one would have.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from headstart.atomic import written_whole
from headstart.choices import Keep, Optimiser, Precision, Schedule
from headstart.evaluation.calibration import calibrated_loss_and_accuracy
from headstart.network.cut import set_trainable
from headstart.network.folding import frozen_batch_norm_folded
from headstart.photos.loading import ahead
from headstart.training.hardware import Hardware, hardware, num_processes, process_number, same_for_all
from headstart.training.probe import Floats, Labels
from headstart.training.process import large_buffers_kept

# On a CPU, of a batch whose photos have more values each than this, so many pass forward and backward at once: what is
# kept for the gradients is half as much for the same speed (benchmarks/README.md).
_LARGE_ROW, _PIECE_SIZE = 100_000, 8
# Without gradients nothing is kept, but a layer's output alone is large. On a CPU, so many rows pass forward at once
# that they have this many values together, 8 at least: 8 photos of 224 pixels, as fast as 64 (benchmarks/README.md).
_ROWS_AT_ONCE, _VALUES_AT_ONCE = 64, 1_200_000
# LAMB changes every layer by the same share of its weights, and what the layers do to the output adds up: with more of
# them than this, the share is less. At the full rate the 50 layers of all of Lite0 diverge (docs/experiments.md).
_LAYERS_AT_FULL_RATE = 17

State = dict[str, torch.Tensor]


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


@dataclass(frozen=True)
class Epoch:
    """One line of a stage's history. Losses are mean cross-entropies, accuracies lie in 0 to 1.

    Training loss and accuracy are measured while training: on augmented views, with dropout, and with the
    weights of that moment. Validation loss is that at the best temperature, because label smoothing makes a network
    less sure while it gets better; NaN where there was no validation.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


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
    progress = _Progress(training, checkpoint)
    progress.restore()
    for epoch in progress.history:
        on_epoch(epoch)
    class_weights = torch.from_numpy(weights).to(where.device)
    while not progress.finished(settings):
        started = time.perf_counter()
        number = len(progress.history)
        draw = np.random.default_rng([seed, number])
        torch.manual_seed(int(draw.integers(2**31)))
        views = train.draw_views(number, draw)
        batches = _batches(train, draw.permutation(len(train)), views, settings.batch_size, where)
        part = progress.position, progress.next_position(settings)
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


def interpolated(start: State, end: State, share: float) -> State:
    """Return `(1 - share) * start + share * end`, tensor by tensor (WiSE-FT, Wortsman et al., 2022)."""
    return {name: torch.lerp(start[name], end[name], share) for name in end}


def trained_state(suffix: nn.Module, train_batch_norm: bool = False) -> State:
    """Copy what training changes in a suffix, to float32 on the CPU."""
    return _copied(set_trainable(suffix, train_batch_norm))


def load_state(suffix: nn.Module, state: State) -> None:
    """Put a state back into a suffix."""
    places = {**dict(suffix.named_parameters()), **dict(suffix.named_buffers())}
    with torch.no_grad():
        for name, tensor in state.items():
            places[name].copy_(tensor)


def _copied(state: State) -> State:
    return {name: value.detach().float().cpu().clone() for name, value in state.items()}


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
        self._settings = settings = _with_rates_for(self.changing, settings)
        self.optimiser = _optimiser(suffix, settings)
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
                scale = _schedule(part[0] + (part[1] - part[0]) * step / self._steps_per_epoch, settings)
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


def _with_rates_for(changing: State, settings: FineTuning) -> FineTuning:
    """Return the settings with the learning rates that the number of layers which train asks for."""
    layers = sum(value.dim() > 1 for value in changing.values())
    if settings.optimiser != "lamb" or layers <= _LAYERS_AT_FULL_RATE:
        return settings
    share = _LAYERS_AT_FULL_RATE / layers
    rates = share * settings.learning_rate, share * settings.head_learning_rate
    return replace(settings, learning_rate=rates[0], head_learning_rate=rates[1])


def _optimiser(suffix: nn.Module, settings: FineTuning) -> torch.optim.Optimizer:
    """Make the optimiser, with weight decay on matrices and kernels only and a learning rate for each unit."""
    units = [unit for unit in suffix.children() if any(value.requires_grad for value in unit.parameters())]
    groups = []
    for depth, unit in enumerate(reversed(units)):
        peak = settings.learning_rate * settings.layer_decay ** (depth - 1) if depth else settings.head_learning_rate
        for decays, decay in ((True, settings.weight_decay), (False, 0.0)):
            members = [value for value in unit.parameters() if value.requires_grad and (value.dim() > 1) == decays]
            if members:
                groups.append({"params": members, "lr": peak, "peak": peak, "weight_decay": decay})
    return named_optimiser(settings.optimiser, groups)


def named_optimiser(name: Optimiser, groups: Any, learning_rate: float = 1e-3) -> torch.optim.Optimizer:
    """Make an optimiser by name; Adam with Keras's epsilon, SGD with Nesterov's momentum of 0.9.

    LAMB (You et al., 2020) takes Adam's direction, by a share of the norm of what it changes: the learning rate.
    """
    if name == "lamb":
        from timm.optim.lamb import Lamb

        # Gradients are clipped before. Without decay, too, steps are relative: biases of a network are small.
        return Lamb(groups, learning_rate, max_grad_norm=None, always_adapt=True)
    if name == "adam":
        return torch.optim.Adam(groups, learning_rate, eps=1e-7)
    if name == "sgd":
        return torch.optim.SGD(groups, learning_rate, momentum=0.9, nesterov=True)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, learning_rate, alpha=0.9, eps=1e-7)
    return torch.optim.AdamW(groups, learning_rate)


def _schedule(position: float, settings: FineTuning) -> float:
    """Return the share of the peak learning rate at a share of training: linear warm-up, then a cosine or the peak."""
    warmup = min(settings.warmup_epochs / settings.epochs, 0.5)
    if position < warmup:
        # Never quite zero, where a step would be lost.
        return max(position / warmup, 0.02)
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (position - warmup) / (1 - warmup)))


def epochs_left(epochs: Sequence[Epoch], settings: FineTuning) -> int:
    """Return how many more epochs are to be trained: as many as are set, if each fits into the time limit."""
    planned = settings.epochs - len(epochs)
    if settings.time_limit is None or not epochs:
        return planned
    # A tenth over the limit is better than a last epoch left out while the learning rate is still high.
    seconds_left = 1.1 * settings.time_limit - sum(epoch.seconds for epoch in epochs)
    return min(planned, max(0, int(seconds_left / epochs[-1].seconds)))


class _Progress:
    """What has been trained so far: history and kept state, in a checkpoint file."""

    def __init__(self, training: _Training, checkpoint: Path) -> None:
        self._training = training
        self._names = {id(value): name for name, value in training.changing.items()}
        self._keep = training._settings.keep
        self._checkpoint = checkpoint
        self.history: list[Epoch] = []
        self.position = 0.0  # the share of the schedule that is done
        self.kept: State = {}

    def finished(self, settings: FineTuning) -> bool:
        """Say whether all epochs are done, none of the last `patience` was better, or time is up."""
        if not epochs_left(self.history, settings):
            return True
        losses = [epoch.validation_loss for epoch in self.history]
        return len(losses) > settings.patience and min(losses[-settings.patience :]) >= min(
            losses[: -settings.patience]
        )

    def next_position(self, settings: FineTuning) -> float:
        """Return the share of the schedule that another epoch brings training to: 1 with the last that time allows."""
        return self.position + (1 - self.position) / epochs_left(self.history, settings)

    def add(self, epoch: Epoch, position: float) -> None:
        """Add an epoch, keep its weights if they are to be kept, and write the checkpoint."""
        averaged = self._training.averaged()
        unseen = math.isnan(epoch.validation_loss)
        best = min((past.validation_loss for past in self.history), default=math.inf)
        if self._keep == "last" or unseen or epoch.validation_loss < best:
            self.kept = _copied(averaged or self._training.changing)
        self.history.append(epoch)
        self.position = position
        if process_number() > 0:
            return
        tensors = {f"kept.{name}": value for name, value in self.kept.items()}
        tensors |= {f"now.{name}": value.detach() for name, value in self._training.changing.items()}
        tensors |= {f"average.{name}": value.detach() for name, value in averaged.items()}
        for parameter, state in self._training.optimiser.state.items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimiser.{key}.{self._names[id(parameter)]}"] = value
        for number, group in enumerate(self._training.optimiser.param_groups):
            if "step" in group:  # LAMB counts its steps there
                tensors[f"steps.{number}"] = torch.as_tensor(group["step"])
        # A copy of each: an average and its source may share memory at first, which safetensors refuses.
        tensors = {name: value.contiguous().clone() for name, value in tensors.items()}
        with written_whole(self._checkpoint) as draft:
            history = json.dumps([asdict(past) for past in self.history])
            save_file(tensors, draft, {"history": history, "position": repr(self.position)})

    def restore(self) -> None:
        """Go back to where the checkpoint was written, if there is one."""
        if not self._checkpoint.exists():
            return
        places = {"now": self._training.changing, "average": self._training.averaged()}
        with safe_open(self._checkpoint, "pt") as file, torch.no_grad():
            self.history = [Epoch(**past) for past in json.loads(file.metadata()["history"])]
            self.position = float(file.metadata()["position"])
            for key in file.keys():  # noqa: SIM118 - not a dictionary
                kind, name = key.split(".", 1)
                tensor = file.get_tensor(key)
                if kind == "kept":
                    self.kept[name] = tensor
                elif kind in places:
                    places[kind][name].copy_(tensor)
                elif kind == "steps":
                    self._training.optimiser.param_groups[int(name)]["step"] = tensor
                else:
                    entry, name = name.split(".", 1)
                    parameter = self._training.changing[name]
                    value = tensor if tensor.dim() == 0 else tensor.to(parameter.device)
                    self._training.optimiser.state[parameter][entry] = value
