"""How far training has come: its epochs, the state that is kept, and the checkpoint that it resumes from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from headstart.atomic import written_whole
from headstart.training.hardware import process_number
from headstart.training.optimisation import FineTuning
from headstart.training.state import State, copied


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


def epochs_left(epochs: Sequence[Epoch], settings: FineTuning) -> int:
    """Return how many more epochs are to be trained: as many as are set, if each fits into the time limit."""
    planned = settings.epochs - len(epochs)
    if settings.time_limit is None or not epochs:
        return planned
    # A tenth over the limit is better than a last epoch left out while the learning rate is still high.
    seconds_left = 1.1 * settings.time_limit - sum(epoch.seconds for epoch in epochs)
    return min(planned, max(0, int(seconds_left / epochs[-1].seconds)))


class Progress:
    """What has been trained so far: history and kept state, in a checkpoint file.

    Args:
        changing: all that training changes, by name.
        optimiser: of it.
        averaged: returns the averages of what training changes; nothing where weights are not averaged.
        settings: which epoch is kept, how many there are, and when they end early.
        checkpoint: the file, rewritten with each epoch.
    """

    def __init__(
        self,
        changing: State,
        optimiser: torch.optim.Optimizer,
        averaged: Callable[[], State],
        settings: FineTuning,
        checkpoint: Path,
    ) -> None:
        self._changing, self._optimiser, self._averaged = changing, optimiser, averaged
        self._settings, self._checkpoint = settings, checkpoint
        self.history: list[Epoch] = []
        self.position = 0.0  # the share of the schedule that is done
        self.kept: State = {}

    def finished(self) -> bool:
        """Say whether all epochs are done, none of the last `patience` was better, or time is up."""
        if not epochs_left(self.history, self._settings):
            return True
        losses, patience = [epoch.validation_loss for epoch in self.history], self._settings.patience
        return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])

    def next_position(self) -> float:
        """Return the share of the schedule that another epoch brings training to: 1 with the last that time allows."""
        return self.position + (1 - self.position) / epochs_left(self.history, self._settings)

    def add(self, epoch: Epoch, position: float) -> None:
        """Add an epoch, keep its weights if they are to be kept, and write the checkpoint."""
        averaged = self._averaged()
        unseen = math.isnan(epoch.validation_loss)
        best = min((past.validation_loss for past in self.history), default=math.inf)
        if self._settings.keep == "last" or unseen or epoch.validation_loss < best:
            self.kept = copied(averaged or self._changing)
        self.history.append(epoch)
        self.position = position
        if process_number() > 0:
            return
        tensors = {f"kept.{name}": value for name, value in self.kept.items()}
        tensors |= {f"now.{name}": value.detach() for name, value in self._changing.items()}
        names = {id(value): name for name, value in self._changing.items()}
        tensors |= {f"average.{name}": value.detach() for name, value in averaged.items()}
        for parameter, state in self._optimiser.state.items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimiser.{key}.{names[id(parameter)]}"] = value
        for group in self._optimiser.param_groups:
            if "step" in group:  # LAMB counts its steps there, the same in each
                tensors["steps.all"] = torch.as_tensor(group["step"])
        # A copy of each: an average and its source may share memory at first, which safetensors refuses.
        tensors = {name: value.contiguous().clone() for name, value in tensors.items()}
        with written_whole(self._checkpoint) as draft:
            history = json.dumps([asdict(past) for past in self.history])
            save_file(tensors, draft, {"history": history, "position": repr(self.position)})

    def restore(self) -> None:
        """Go back to where the checkpoint was written, if there is one."""
        if not self._checkpoint.exists():
            return
        places = {"now": self._changing, "average": self._averaged()}
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
                    for group in self._optimiser.param_groups:
                        group["step"].copy_(tensor)
                else:
                    entry, name = name.split(".", 1)
                    parameter = self._changing[name]
                    value = tensor if tensor.dim() == 0 else tensor.to(parameter.device)
                    self._optimiser.state[parameter][entry] = value
