"""What is kept of a step of fine-tuning: the best on validation photos of what was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from headstart.console import Console
from headstart.errors import counted
from headstart.evaluation.calibration import calibrated_loss_and_accuracy, calibrated_losses
from headstart.recipe import Recipe, Step
from headstart.training.data import TrainingData
from headstart.training.finetuning import suffix_logits
from headstart.training.heads import Blend, choose_blend, set_head
from headstart.training.probe import Floats, LinearHead
from headstart.training.state import State, interpolated, load_state

INTERPOLATION_SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Kept:
    """What is best on validation photos so far, and in the network now: a stage's weights, or what lies on the way.

    `image_size` is that of the photos that it sees, `loss` its log loss on validation photos at the best temperature,
    `logits` (n, num_classes) what it says of them, NaN of those that its step did not see, `share` how far it is from
    the weights that training started from to those that it ended with, `tuned` the fine-tuning that it comes from, None
    of a head alone, `regularisation` that of the probe, and `blend` how its head was made of two, if it was.
    """

    stage: str
    boundary: int
    image_size: int
    loss: float
    validation_accuracy: float
    share: float = 0.0
    points_over_probe: float = 0.0
    tuned: Tuned | None = None
    regularisation: float | None = None
    blend: Blend | None = None
    logits: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32), compare=False, repr=False)

    @property
    def step(self) -> Step | None:
        """The step of fine-tuning; None of a head alone."""
        return self.tuned.step if self.tuned else None

    def seen_of(self, data: TrainingData) -> TrainingData:
        """Return of the photos what it was trained on, at the size that it sees them."""
        return data.at(self.image_size).part(self.step.one_in if self.step else 1)

    def told(self) -> dict[str, Any]:
        """Return what the metrics say of it."""
        told = ("stage", "image_size", "validation_accuracy", "share", "points_over_probe")
        return {name: getattr(self, name) for name in told} | {"blended": self.blend is not None}

    @classmethod
    def untrained(cls, data: TrainingData) -> Kept:
        """Return what random weights are: worse than anything."""
        nothing = np.zeros((len(data.labels["validation"]), len(data.class_names)), np.float32)
        return cls("random weights", 0, data.image_size, math.inf, 0.0, logits=nothing)


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned suffix: its step, its states, and what it measured.

    `before` is what was kept so far, `start` where training started, `end` where it ended; `logits` are those of the
    validation photos at the end. `regularisation` is that chosen for the probe, where training started from a softer
    one, and None where it started from tuned weights or random ones.
    """

    suffix: nn.Sequential
    step: Step
    boundary: int
    before: State
    start: State
    end: State
    logits: Floats
    stage: str
    stages: dict[str, Any]
    regularisation: float | None = None


def keep(
    tuned: Tuned,
    before: Kept,
    data: TrainingData,
    recipe: Recipe,
    weights: Floats,
    console: Console,
    more: bool = False,
) -> tuple[Kept, bool]:
    """Keep the best on validation of what was kept before, the tuned weights and what lies between; else the last.

    The best of a step is tried once more with its head blended with one fitted anew (`headstart.training.heads`). The
    least log loss at its best temperature wins: on few photos that is a steadier judge than accuracy
    (docs/experiments.md). What is kept is in the network then.

    Args:
        tuned: the fine-tuned suffix.
        before: what was kept until now.
        data: at the size that the step saw photos at.
        recipe: whether the last is always kept.
        weights: (num_classes,) a weight per class in the loss.
        console: where is told what is kept.
        more: whether a deeper step is planned.

    Returns:
        What is kept, and whether the deeper step is worth trying: not where this one, as it ended, was clearly worse.
    """
    labels, logits_before = data.labels["validation"], before.logits[data.validation_rows]
    loss_before, accuracy_before = calibrated_loss_and_accuracy(logits_before, labels)
    always = keeps_last(recipe)
    candidates = [_Candidate(1.0, tuned.logits)] if always else _candidates(tuned, data, recipe, weights)
    measured = [calibrated_loss_and_accuracy(candidate.logits, labels) for candidate in candidates]
    best = min(range(len(candidates)), key=lambda number: measured[number][0])
    (loss, accuracy), photos = measured[best], counted(len(labels), "photo")
    if loss >= loss_before and not always:
        load_state(tuned.suffix, tuned.before)
        hopeful = not clearly_more(*(calibrated_losses(logits, labels) for logits in (tuned.logits, logits_before)))
        console.say(f"Kept        {before.stage}: {tuned.stage} is not better on {photos}, and is undone")
        if more:
            next_step = (
                "that may be chance: a deeper step is tried" if hopeful else "it is clearly worse: no deeper step"
            )
            console.say(f"            {next_step}")
        return before, hopeful
    chosen = candidates[best]
    load_state(tuned.suffix, interpolated(tuned.start, tuned.end, chosen.share))
    if chosen.head is not None:
        set_head(tuned.suffix, chosen.head)
    how = [f"{chosen.share:.0%} of the way"] if chosen.share < 1 else []
    how += ["the head blended with one fitted anew"] if chosen.blend else []
    which = f"{tuned.stage} ({', '.join(how)})" if how else tuned.stage
    gain = 100 * (accuracy - accuracy_before)
    logits = np.full_like(before.logits, np.nan)
    logits[data.validation_rows] = chosen.logits
    gained = "" if recipe.from_scratch else f", {gain:+.1f} points"
    console.say(f"Kept        {which}: validation accuracy {100 * accuracy:.1f}%{gained}, on {photos}")
    kept = Kept(
        stage=tuned.stage,
        boundary=tuned.boundary,
        image_size=data.image_size,
        loss=loss,
        validation_accuracy=accuracy,
        share=chosen.share,
        points_over_probe=before.points_over_probe + gain,
        tuned=tuned,
        blend=chosen.blend,
        logits=logits,
    )
    return kept, True


@dataclass(frozen=True)
class _Candidate:
    """Weights that may be kept: how far on the way they lie, their logits of validation photos, a head of their own."""

    share: float
    logits: Floats
    blend: Blend | None = None
    head: LinearHead | None = None


def _candidates(tuned: Tuned, data: TrainingData, recipe: Recipe, weights: Floats) -> list[_Candidate]:
    """Return what may be kept of a step: its end, what lies on the way, and the best of these with a blended head."""
    rows, candidates = data.activations("validation", tuned.boundary), []
    for share in INTERPOLATION_SHARES:
        load_state(tuned.suffix, interpolated(tuned.start, tuned.end, share))
        candidates.append(_Candidate(share, suffix_logits(tuned.suffix, rows)))
    candidates.append(_Candidate(1.0, tuned.logits))
    if blends(recipe):
        labels = data.labels["validation"]
        best = min(candidates, key=lambda candidate: calibrated_loss_and_accuracy(candidate.logits, labels)[0])
        load_state(tuned.suffix, interpolated(tuned.start, tuned.end, best.share))
        blend, head, logits = choose_blend(tuned.suffix, data, tuned.boundary, best.logits, weights)
        candidates.append(_Candidate(best.share, logits, blend, head))
    return candidates


def keeps_last(recipe: Recipe) -> bool:
    """Say whether a step's last weights are kept, whatever validation says."""
    return recipe.keep == "last" or recipe.from_scratch


def blends(recipe: Recipe) -> bool:
    """Say whether a head is fitted anew on what each step has tuned: not where the example's head is asked for."""
    return recipe.head == "probe" and not keeps_last(recipe)


def clearly_more(losses: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> bool:
    """Say whether the mean of losses is greater than that of others on the same photos, by two standard errors."""
    apart = losses - others
    return float(apart.mean()) > 2 * float(apart.std(ddof=1)) / math.sqrt(len(apart)) if len(apart) > 1 else False
