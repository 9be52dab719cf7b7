"""Fine-tuning the suffix from stored activations, starting from the probe (LP-FT, Kumar et al., 2022).

Every epoch takes one view of each photo, drawn by seed and epoch. BatchNorm stays frozen. All randomness of
an epoch comes from (seed, epoch), so a run that resumes at an epoch's start ends where an uninterrupted one
would have.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from headstart.atomic import written_whole
from headstart.network.cut import set_trainable
from headstart.training.probe import Floats, Labels, loss_and_accuracy
from headstart.training.process import keep_large_buffers
from headstart.training.store import StoredRows

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class FineTuning:
    """The settings of fine-tuning; learning rates are peaks, reached after warm-up, before cosine decay.

    `learning_rate` is for the blocks and the head convolution, `head_learning_rate` for the classifier.
    Training stops early when the validation loss has not improved for `patience` epochs.
    """

    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 5e-4
    head_learning_rate: float = 5e-4
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    warmup_epochs: float = 1.0
    patience: int = 4


@dataclass(frozen=True)
class Epoch:
    """One line of a stage's history. Losses are mean cross-entropies, accuracies lie in 0 to 1.

    Training loss and accuracy are measured while training: on augmented views, with dropout, and with the
    weights of that moment.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


class ViewRows:
    """The stored views of the training photos: `take` picks one view for each of some photos."""

    def __init__(self, views: Sequence[StoredRows]) -> None:
        self._views = views
        self.num_views = len(views)

    def __len__(self) -> int:
        return len(self._views[0])

    def take(self, photos: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return (n, *row shape) float32 activations: photo photos[i] in view views[i]."""
        out = np.empty((len(photos), *self._views[0].shape[1:]), np.float32)
        for view in np.unique(views):
            here = views == view
            out[here] = self._views[view].take(photos[here])
        return torch.from_numpy(out)


def fine_tune(
    suffix: nn.Module,
    train: ViewRows,
    train_labels: Labels,
    validation: StoredRows,
    validation_labels: Labels,
    weights: Floats,
    settings: FineTuning,
    seed: int,
    checkpoint: Path,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[State, list[Epoch]]:
    """Train a suffix in place and return its state at the epoch of highest validation accuracy.

    Args:
        suffix: ends in the classifier; its weights now are where training starts.
        train: the training photos' stored views.
        train_labels: (n,) class indices.
        validation: the validation photos' activations in view 0.
        validation_labels: (m,) class indices.
        weights: (num_classes,) a weight per class in the loss.
        settings: see `FineTuning`.
        seed: the recipe's seed.
        checkpoint: a file to resume from, rewritten after every epoch.
        on_epoch: called with each finished epoch, also with those read from the checkpoint.

    Returns:
        The best state (of trained parameters; among equally accurate epochs the one of least loss), and every
        epoch.
    """
    keep_large_buffers()
    device = _device()
    suffix.to(device)
    parameters = set_trainable(suffix)
    named = {name: parameter for name, parameter in suffix.named_parameters() if parameter.requires_grad}
    optimiser = _optimiser(suffix, named, settings)
    steps_per_epoch = math.ceil(len(train) / settings.batch_size)
    class_weights = torch.from_numpy(weights).to(device)
    progress = _Progress(named, optimiser, checkpoint)
    progress.restore()
    for epoch in progress.history:
        on_epoch(epoch)
    while len(progress.history) < settings.epochs and not progress.stalled(settings.patience):
        started = time.perf_counter()
        number = len(progress.history)
        draw = np.random.default_rng([seed, number])
        torch.manual_seed(int(draw.integers(2**31)))
        order = draw.permutation(len(train))
        views = draw.integers(0, train.num_views, len(train))
        suffix.train()
        set_trainable(suffix)
        loss_sum, correct = 0.0, 0
        for step, start in enumerate(range(0, len(order), settings.batch_size)):
            scale = _schedule(number * steps_per_epoch + step, steps_per_epoch, settings)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * scale
            photos = order[start : start + settings.batch_size]
            batch = _on(train.take(photos, views[photos]), device)
            labels = torch.from_numpy(train_labels[photos]).to(device)
            logits = suffix(batch)
            loss = F.cross_entropy(logits, labels, class_weights, label_smoothing=settings.label_smoothing)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            loss_sum += float(loss.detach()) * len(photos)
            correct += int((logits.argmax(dim=1) == labels).sum())
        loss_now, accuracy = loss_and_accuracy(suffix_logits(suffix, validation), validation_labels)
        progress.add(
            Epoch(
                epoch=number + 1,
                train_loss=loss_sum / len(order),
                train_accuracy=correct / len(order),
                validation_loss=loss_now,
                validation_accuracy=accuracy,
                learning_rate=settings.learning_rate * scale,
                seconds=time.perf_counter() - started,
            )
        )
        on_epoch(progress.history[-1])
    return progress.best, progress.history


@torch.inference_mode()
def suffix_logits(suffix: nn.Module, rows: StoredRows, batch_size: int = 64) -> Floats:
    """Return the (n, num_classes) float32 logits of stored activations, in evaluation mode."""
    suffix.eval()
    device = next(suffix.parameters()).device
    parts = [
        suffix(_on(torch.from_numpy(rows.take(slice(start, start + batch_size)).astype(np.float32)), device))
        for start in range(0, len(rows), batch_size)
    ]
    return np.asarray(torch.cat(parts).float().cpu().numpy())


def interpolated(start: State, end: State, share: float) -> State:
    """Return `(1 - share) * start + share * end`, tensor by tensor (WiSE-FT, Wortsman et al., 2022)."""
    return {name: torch.lerp(start[name], end[name], share) for name in end}


def trained_state(suffix: nn.Module) -> State:
    """Copy the parameters of a suffix that train, to float32 on the CPU."""
    set_trainable(suffix)
    return {
        name: parameter.detach().float().cpu().clone()
        for name, parameter in suffix.named_parameters()
        if parameter.requires_grad
    }


def load_state(suffix: nn.Module, state: State) -> None:
    """Put trained parameters back into a suffix."""
    parameters = dict(suffix.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            parameters[name].copy_(tensor)


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _on(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    if batch.dim() == 4:
        return batch.to(device).contiguous(memory_format=torch.channels_last)
    return batch.to(device)


def _optimiser(suffix: nn.Module, named: dict[str, nn.Parameter], settings: FineTuning) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices and kernels only, and a learning rate of its own for the classifier."""
    classifier = {id(parameter) for parameter in list(suffix.children())[-1].parameters()}
    groups = []
    for in_head, peak in ((False, settings.learning_rate), (True, settings.head_learning_rate)):
        for decays, decay in ((True, settings.weight_decay), (False, 0.0)):
            members = [
                parameter
                for parameter in named.values()
                if (id(parameter) in classifier) == in_head and (parameter.dim() > 1) == decays
            ]
            if members:
                groups.append({"params": members, "lr": peak, "peak": peak, "weight_decay": decay})
    return torch.optim.AdamW(groups)


def _schedule(step: int, steps_per_epoch: int, settings: FineTuning) -> float:
    """Return the share of the peak learning rate: linear warm-up, then a cosine to zero."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, settings.epochs * steps_per_epoch - warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _quality(epoch: Epoch) -> tuple[float, float]:
    """Order epochs by what is wanted of them: accuracy, and among equals low loss.

    Label smoothing makes the loss alone a poor judge: it makes the network less sure while it gets better.
    """
    return epoch.validation_accuracy, -epoch.validation_loss


class _Progress:
    """What has been trained so far: history and best state, kept in a checkpoint file."""

    def __init__(self, named: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, checkpoint: Path) -> None:
        self._named = named
        self._optimiser = optimiser
        self._checkpoint = checkpoint
        self.history: list[Epoch] = []
        self.best: State = {}

    def stalled(self, patience: int) -> bool:
        """Say whether the last `patience` epochs brought no lower validation loss."""
        losses = [epoch.validation_loss for epoch in self.history]
        return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])

    def add(self, epoch: Epoch) -> None:
        """Add an epoch, keep its weights if they are the best so far, and write the checkpoint."""
        if not self.history or _quality(epoch) > max(map(_quality, self.history)):
            self.best = {name: value.detach().float().cpu().clone() for name, value in self._named.items()}
        self.history.append(epoch)
        tensors = {f"best.{name}": value for name, value in self.best.items()}
        for name, parameter in self._named.items():
            tensors[f"now.{name}"] = parameter.detach()
            for key, value in self._optimiser.state[parameter].items():
                tensors[f"optimiser.{key}.{name}"] = value
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        with written_whole(self._checkpoint) as draft:
            save_file(tensors, draft, {"history": json.dumps([asdict(past) for past in self.history])})

    def restore(self) -> None:
        """Go back to where the checkpoint was written, if there is one."""
        if not self._checkpoint.exists():
            return
        with safe_open(self._checkpoint, "pt") as file, torch.no_grad():
            self.history = [Epoch(**past) for past in json.loads(file.metadata()["history"])]
            for key in file.keys():  # noqa: SIM118 - not a dictionary
                kind, name = key.split(".", 1)
                tensor = file.get_tensor(key)
                if kind == "best":
                    self.best[name] = tensor
                elif kind == "now":
                    self._named[name].copy_(tensor)
                else:
                    entry, name = name.split(".", 1)
                    parameter = self._named[name]
                    value = tensor if tensor.dim() == 0 else tensor.to(parameter.device)
                    self._optimiser.state[parameter][entry] = value
