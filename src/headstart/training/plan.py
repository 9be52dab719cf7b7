"""Planning a run within its time budget: what is measured on this computer, and what is chosen for it.

The probe comes first, whatever the budget: it takes one pass of the frozen network. What time is left is for
fine-tuning, step by step from the last stages towards the pixels. A deeper step gains more on photos unlike ImageNet's
and costs more for each photo, so the deepest ladder is taken whose steps get enough epochs (docs/experiments.md).
"""

from __future__ import annotations

import itertools
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from headstart.console import Console
from headstart.errors import HeadstartError, counted
from headstart.network.cut import boundary_of, suffix, units
from headstart.peaks import product_speed
from headstart.photos.split import SPLITS
from headstart.recipe import Part, Plan, Recipe, Step
from headstart.training.data import TrainingData
from headstart.training.finetuning import training_speed
from headstart.training.heads import HELD_ROWS
from headstart.training.keeping import blends
from headstart.training.refitting import refit_epochs
from headstart.training.stages import fine_tuning, part_text

# What fine-tuning may take of the disk, besides being no more than a third of what is free.
STORED_BYTES = 10 * 10**9
# Stored views: the plain one, and more the longer training is; a short one learns less from many (docs/experiments.md).
FEWEST_VIEWS, MOST_VIEWS, EPOCHS_A_VIEW = 2, 8, 4
# Refitting is on a fifth more photos. Where nothing else fits, it is a quarter as long as its step.
REFIT_PHOTOS, SHORT_REFIT = 1.2, 0.25
# With less than this there is no time to fine-tune, nor to measure how fast it would be.
LEAST_SECONDS = 15.0
# The probe gains from a plain and two augmented views (docs/experiments.md), if they take a small share of the time.
PROBE_VIEWS, PROBE_SHARE = 3, 0.15
# Judging the probe; the evaluations of searching its regularisation and of fitting it on all rows; and the share of the
# peak of matrix products that they reach.
PROBE_SECONDS, SEARCH_EVALUATIONS, FIT_EVALUATIONS, PROBE_EFFICIENCY = 3.0, 500, 100, 0.4
# Rows that the regularisation is searched on: of more, it takes minutes, and is the same within a step. What the search
# may take of the time.
FEWEST_SEARCHED, MOST_SEARCHED, SEARCH_SHARE = 5_000, 40_000, 0.15
# Writing the classifier and the report; ranking suspect labels, and that for each photo and class (two cores).
CLOSING_SECONDS, RANKING_SECONDS, RANKING_SECONDS_PER_LOGIT = 4.0, 1.0, 8e-6
# Of few photos, small batches learn more in the same time (docs/experiments.md); of many there are steps enough.
FEW_PHOTOS, BATCH_OF_FEW, BATCH_OF_MANY = 2000, 8, 16
# Least and most epochs of a step, and least and most steps of the optimiser, which rule where photos are few: with less
# training disturbs more than it teaches, with more it gains nothing. The deepest step gets more than those before it,
# or there are fewer; one that is alone may be as short as they.
EPOCHS_ABOVE, UPDATES_ABOVE = (2, 6), (120, 160)
EPOCHS_OF_LAST, UPDATES_OF_LAST = (4, 16), (200, 500)
MOST_EPOCHS = 60
# On smaller photos than the probe's a step that short may well be worse than that (docs/experiments.md).
LEAST_UPDATES_SMALLER = 180
# Where no step fits on photos of the run's size, fine-tuning sees smaller ones, of these shares of it
# (docs/experiments.md).
TUNING_SHARES = (3 / 4, 5 / 8)
# What embedding the photos once may take of the budget, before they are made smaller; and what that and fitting the
# probe may take, before a part of them is left out.
EMBEDDING_SHARE, PART_SHARE = 0.4, 0.7
SMALLEST_IMAGE = 128


@dataclass(frozen=True)
class Rung:
    """A depth to fine-tune at: photos/s of training and embedding, and bytes that a stored view of a photo takes.

    `image_size` is that of the photos, in pixels, where it is not the run's.
    """

    part: Part
    boundary: int
    photos_per_second: float
    embedded_per_second: float
    row_bytes: int
    image_size: int | None = None

    def at(self, image_size: int, own_size: int, decoded_per_second: float) -> Rung:
        """Return the same depth on smaller photos, by the number of their pixels."""
        if image_size == own_size:
            return self
        share = (image_size / own_size) ** 2
        decoding = 1 / decoded_per_second  # which takes as long
        return replace(
            self,
            # A little less than by the pixels: the smaller, the more of the time is not the convolutions'.
            photos_per_second=self.photos_per_second / share**0.9,
            embedded_per_second=1 / (decoding + max(0.0, 1 / self.embedded_per_second - decoding) * share),
            row_bytes=math.ceil(self.row_bytes * share),
            image_size=image_size,
        )


@dataclass(frozen=True)
class Costs:
    """What a plan is made from: numbers of photos, photos/s of embedding and decoding, and room on the disk.

    `logits_per_second` is how many logits L-BFGS evaluates for a head, gradients included; `batch_size` is that of
    fine-tuning. `blends` is whether a head is fitted anew after each step.
    """

    train_photos: int
    validation_photos: int
    test_photos: int
    embedded_per_second: float
    decoded_per_second: float
    logits_per_second: float
    free_bytes: int
    refit: bool
    batch_size: int
    num_classes: int
    blends: bool

    def step(self, rung: Rung, epochs: int, num_views: int, short_refit: bool = False) -> Step:
        """Return a step with the seconds that its training should take."""
        refit = max(1, round(SHORT_REFIT * epochs)) if short_refit else None
        seconds = self.train_photos * epochs / rung.photos_per_second
        # Validation is a forward pass: a third of a training step.
        seconds += self.validation_photos * (epochs + 4) / (3 * rung.photos_per_second)
        return Step(
            unfreeze=rung.part,
            epochs=epochs,
            num_views=num_views,
            batch_size=self.batch_size,
            image_size=rung.image_size,
            seconds=round(seconds, 1),
            head_seconds=round(self._head_seconds(rung), 1),
            refit_epochs=refit,
        )

    def _head_seconds(self, rung: Rung) -> float:
        """Return what fitting a head on tuned features takes: a forward pass of its photos, and the search."""
        rows = min(HELD_ROWS, self.train_photos) if self.blends else 0
        evaluated = SEARCH_EVALUATIONS * rows * self.num_classes
        return rows / (3 * rung.photos_per_second) + evaluated / self.logits_per_second

    def seconds(self, step: Step, rung: Rung) -> float:
        """Return what a step takes in all: its views, its epochs, its head, and the test photos at its depth."""
        viewed = self.train_photos + (self.validation_photos if self.refit else 0)
        reading = (viewed * step.num_views + self.validation_photos) / rung.embedded_per_second
        if rung.boundary == 0:
            reading = (self.train_photos * step.epochs) / self.decoded_per_second
        testing = self.test_photos * (1 / rung.embedded_per_second + 1 / (3 * rung.photos_per_second))
        return step.seconds + step.head_seconds + reading + testing

    def probe_views(self, seconds_left: float) -> int:
        """Return how many views the probe is fitted on: as many as pay, where there is time to embed them."""
        seconds = (PROBE_VIEWS - 1) * (self.train_photos + self.validation_photos) / self.embedded_per_second
        return PROBE_VIEWS if seconds < PROBE_SHARE * seconds_left else 1

    def searched_rows(self, seconds_left: float) -> int:
        """Return how many rows at most the probe's regularisation is searched on."""
        rows = SEARCH_SHARE * seconds_left * self.logits_per_second / (SEARCH_EVALUATIONS * self.num_classes)
        return int(min(MOST_SEARCHED, max(FEWEST_SEARCHED, rows)))

    def probe_seconds(self, num_views: int, searched_rows: int) -> float:
        """Return what the probe takes: views not embedded yet, the search, the fit on all rows, and judging it."""
        photos = self.train_photos + self.validation_photos
        evaluated = SEARCH_EVALUATIONS * min(searched_rows, num_views * photos)
        evaluated += FIT_EVALUATIONS * num_views * photos
        fitting = PROBE_SECONDS + evaluated * self.num_classes / self.logits_per_second
        return (num_views - 1) * photos / self.embedded_per_second + fitting

    def views(self, rung: Rung, epochs: int) -> int:
        """Return how many views to store: one for every few epochs, as far as there is room; 0 where there is none."""
        if rung.boundary == 0:
            return 1
        room = min(STORED_BYTES, self.free_bytes // 3) // max(1, self.view_bytes(rung))
        return min(MOST_VIEWS, max(FEWEST_VIEWS, epochs // EPOCHS_A_VIEW), room)

    def view_bytes(self, rung: Rung) -> int:
        """Return the bytes that one view of every photo takes, and another of those validated on where it refits."""
        return (self.train_photos + 2 * self.validation_photos + self.test_photos) * rung.row_bytes


def plan_run(
    recipe: Recipe, network: nn.Module, data: TrainingData, checks: bool, elapsed: float, console: Console
) -> Plan:
    """Measure what embedding and training cost here, plan the run, and say what and why.

    Args:
        recipe: what it gives of depth, epochs and views is kept.
        network: to be trained.
        data: the photos, split and embedded.
        checks: whether labels are checked in the end.
        elapsed: seconds since the run began.
        console: where the plan is told.
    """
    started = time.perf_counter() - elapsed
    seconds_left = recipe.budget_seconds - elapsed
    closing = closing_seconds(recipe, data, checks)
    plan = Plan(
        image_size=data.image_size,
        probe_views=recipe.probe_views or 1,
        searched_rows=FEWEST_SEARCHED,
        steps=(),
        seconds=round(elapsed + closing, 1),
        closing_seconds=closing,
        check=checks,
    )
    if seconds_left < LEAST_SECONDS and recipe.unfreeze is None and recipe.epochs is None:
        console.say(
            f"Plan        {max(0, seconds_left):.0f} s left of {recipe.budget}: the probe alone, nothing is measured"
        )
        return plan
    costs = _measured(recipe, network, data)
    searched_rows = costs.searched_rows(seconds_left)
    probe_views = recipe.probe_views or costs.probe_views(seconds_left)
    spoken_for = closing
    if not recipe.from_scratch:
        spoken_for += costs.probe_seconds(probe_views, searched_rows)
    rungs: list[Rung] = []
    steps: list[Step] = []
    ladders: list[list[Rung]] = []
    depths = ladder(network) if recipe.unfreeze is None else (recipe.unfreeze,)
    for part in depths if recipe.unfreeze != 0 else ():
        rungs.append(_rung(part, recipe, network, data, costs))
        ladders = ladders_of(rungs, data.image_size, costs, recipe)
        left = recipe.budget_seconds - (time.perf_counter() - started)
        steps = choose_steps(ladders, costs, left - spoken_for, recipe)
        if not steps or steps[-1].unfreeze != part:
            break  # deeper ones cost more still
    if not steps and recipe.probe_views is None and not recipe.from_scratch:
        # Time that no step can use is enough for the probe's views.
        in_all = costs.probe_seconds(PROBE_VIEWS, searched_rows) + closing
        if in_all < recipe.budget_seconds - (time.perf_counter() - started):
            probe_views, spoken_for = PROBE_VIEWS, in_all
    seconds = time.perf_counter() - started + spoken_for + _needed(steps, ladders, costs)
    chosen = {"probe_views": probe_views, "searched_rows": searched_rows, "steps": tuple(steps)}
    plan = plan.model_copy(update={**chosen, "seconds": round(seconds, 1)})
    _tell(plan, ladders, costs, seconds_left, recipe, console)
    return plan


def closing_seconds(recipe: Recipe, data: TrainingData, checks: bool) -> float:
    """Return what follows the test takes: the report, and the ranking of suspect labels where they are checked."""
    if not checks or recipe.from_scratch:
        return CLOSING_SECONDS
    logits = sum(len(data.photos[split]) for split in SPLITS) * len(data.class_names)
    return round(CLOSING_SECONDS + RANKING_SECONDS + RANKING_SECONDS_PER_LOGIT * logits, 1)


def _needed(steps: Sequence[Step], ladders: Sequence[Sequence[Rung]], costs: Costs) -> float:
    """Return what steps take in all, with the refit of the last one."""
    refit = refit_seconds(steps[-1]) + steps[-1].head_seconds if steps and costs.refit else 0.0
    return sum(costs.seconds(step, _rung_of(step, ladders)) for step in steps) + refit


def _rung_of(step: Step, ladders: Sequence[Sequence[Rung]]) -> Rung:
    wanted = step.unfreeze, step.image_size
    return next(rung for rungs in ladders for rung in rungs if (rung.part, rung.image_size) == wanted)


def refit_seconds(step: Step) -> float:
    """Return what the epochs of refitting a step should take."""
    return REFIT_PHOTOS * step.seconds * refit_epochs(step) / step.epochs


def _measured(recipe: Recipe, network: nn.Module, data: TrainingData) -> Costs:
    photos = data.photos["train"]
    return Costs(
        train_photos=len(photos),
        validation_photos=len(data.photos["validation"]),
        test_photos=len(data.photos["test"]),
        embedded_per_second=math.inf if recipe.from_scratch else data.embedder.speed(photos),
        decoded_per_second=data.embedder.decoding_speed(photos),
        logits_per_second=logits_per_second(network),
        free_bytes=shutil.disk_usage(data.embedder.cache).free,
        refit=recipe.refits,
        batch_size=recipe.batch_size or (BATCH_OF_FEW if len(photos) <= FEW_PHOTOS else BATCH_OF_MANY),
        num_classes=len(data.class_names),
        blends=blends(recipe),
    )


def logits_per_second(network: nn.Module) -> float:
    """Measure how many logits of a network's features L-BFGS evaluates in a second, with their gradients."""
    num_features = network.get_submodule("classifier").get_parameter("weight").shape[1]
    return PROBE_EFFICIENCY * product_speed(torch.device("cpu"), torch.float32, 0.1) / (4 * num_features)


def ladder(network: nn.Module) -> tuple[Part, ...]:
    """Return the depths that are tried: the last two stages, the last four, everything."""
    stages = {name.split(".")[1] for name, _ in units(network) if name.startswith("blocks.")}
    return f"stage{len(stages) - 1}", f"stage{len(stages) - 3}", "all"


def ladders_of(rungs: Sequence[Rung], own_size: int, costs: Costs, recipe: Recipe) -> list[list[Rung]]:
    """Return the ladders that the rungs make, the best first: larger photos before smaller, then the deeper.

    Args:
        rungs: from the last stages towards the pixels, on photos of the run's size.
        own_size: that size, in pixels.
        costs: what steps cost.
        recipe: a depth that it gives is the only one; an image size or epochs that it gives rule out smaller photos.
    """
    given = recipe.image_size is not None or recipe.epochs is not None
    fixed = given or recipe.from_scratch or recipe.head != "probe"
    smaller = (max(SMALLEST_IMAGE, round(share * own_size / 32) * 32) for share in TUNING_SHARES)
    sizes = [own_size, *(() if fixed else sorted({size for size in smaller if size < own_size}, reverse=True))]
    depths = range(len(rungs), 0, -1) if recipe.unfreeze is None else (1,)
    return [
        [rung.at(size, own_size, costs.decoded_per_second) for rung in rungs[:depth]]
        for size in sizes
        for depth in depths
    ]


def choose_steps(ladders: Sequence[Sequence[Rung]], costs: Costs, seconds: float, recipe: Recipe) -> list[Step]:
    """Choose the steps: those of the first ladder that fits, with as many epochs as fit.

    Args:
        ladders: the best first; each from the last stages towards the pixels.
        costs: what steps cost.
        seconds: the time for them.
        recipe: its epochs and views, where given, are kept; what is asked for is done, however long it takes.

    Raises:
        HeadstartError: when a depth was asked for whose activations find no room on the disk.
    """
    shortest: list[Step] = []
    for chosen in ladders:
        best: list[Step] = []
        for steps in _ever_longer(chosen, costs, recipe):
            if recipe.unfreeze is None or not shortest:
                shortest = steps
            if _needed(steps, [chosen], costs) > seconds:
                break
            best = steps
        if best:
            return best
    if recipe.unfreeze is not None and not shortest:
        room = min(STORED_BYTES, costs.free_bytes // 3)
        raise HeadstartError(
            f"--unfreeze {recipe.unfreeze}: its activations take {costs.view_bytes(ladders[-1][0]) / 1e9:.1f} GB a "
            f"view; of {costs.free_bytes / 1e9:.1f} GB free, {room / 1e9:.1f} GB may be used.",
            "Make room, choose another disk with --cache, a part nearer the end, or `all`, which stores nothing.",
        )
    return shortest if recipe.unfreeze is not None or recipe.epochs is not None else []


def _ever_longer(chosen: Sequence[Rung], costs: Costs, recipe: Recipe) -> Iterator[list[Step]]:
    """Yield the steps of a ladder with more and more epochs; nothing where their views find no room.

    A single step that is as short as can be comes first with a shorter refit.
    """
    longer = [(share, False) for share in (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)]
    shortest = [(0.0, True)] if len(chosen) == 1 and costs.refit else []
    for share, short_refit in [*shortest, *longer] if recipe.epochs is None else longer[:1]:
        steps = []
        for rung in chosen:
            least, most = _bounds(costs.train_photos / costs.batch_size, rung, chosen)
            epochs = recipe.epochs or round(least + share * (most - least))
            views = recipe.num_views or costs.views(rung, epochs)
            if not views:
                return
            steps.append(costs.step(rung, epochs, views, short_refit))
        yield steps


def _bounds(updates_per_epoch: float, rung: Rung, chosen: Sequence[Rung]) -> tuple[int, int]:
    """Return the least and the most epochs of a rung's step among the rungs that are chosen."""
    deepest, alone = rung is chosen[-1], len(chosen) == 1
    epochs = EPOCHS_OF_LAST if deepest else EPOCHS_ABOVE
    updates = UPDATES_OF_LAST if deepest else UPDATES_ABOVE
    if alone:
        epochs, updates = (EPOCHS_ABOVE[0], epochs[1]), (UPDATES_ABOVE[0], updates[1])
    if deepest and rung.image_size is not None:
        updates = LEAST_UPDATES_SMALLER, max(LEAST_UPDATES_SMALLER, updates[1])
    least, most = (max(of, math.ceil(by / updates_per_epoch)) for of, by in zip(epochs, updates, strict=True))
    return min(least, MOST_EPOCHS), min(most, MOST_EPOCHS)


def _rung(part: Part, recipe: Recipe, network: nn.Module, data: TrainingData, costs: Costs) -> Rung:
    boundary = boundary_of(network, part)
    trainable = suffix(network, boundary, data.embedder.preprocessing, recipe.dropout_rate)
    shape = data.embedder.row_shape(boundary)
    speed = training_speed(trainable, shape, fine_tuning(recipe, costs.batch_size, epochs=1))
    return Rung(part, boundary, speed, costs.embedded_per_second, 2 * math.prod(shape) if boundary else 0)


def _tell(
    plan: Plan, ladders: Sequence[Sequence[Rung]], costs: Costs, seconds_left: float, recipe: Recipe, console: Console
) -> None:
    rungs = ladders[0] if ladders else ()  # all that were measured
    left = "no time limit" if math.isinf(seconds_left) else f"{max(0, seconds_left):.0f} s left of {recipe.budget}"
    speeds = ", ".join(f"{rung.part} {rung.photos_per_second:.0f}" for rung in rungs)
    trained = f", training {speeds}" if rungs else ""
    console.say(f"Plan        {left}; photos/s here: embedding {costs.embedded_per_second:.0f}{trained}")
    if not recipe.from_scratch:
        console.say(f"            a head on {counted(plan.probe_views, 'view')} of each photo")
    for number, step in enumerate(plan.steps, 1):
        rung = _rung_of(step, ladders)
        stored = costs.train_photos * step.num_views * rung.row_bytes / 1e6
        views = f"{counted(step.num_views, 'view')} stored ({stored:,.0f} MB)" if rung.boundary else "views made anew"
        console.say(
            f"            {number}. {part_text(step.unfreeze, step.image_size)}: {counted(step.epochs, 'epoch')}, "
            f"batches of {step.batch_size}, {views}, about {costs.seconds(step, rung):.0f} s"
        )
    if any(step.image_size for step in plan.steps):
        console.say(f"            at {plan.image_size} pixels these steps would take too long")
    if rungs and not plan.steps:
        roomy = all(rung.boundary == 0 or costs.views(rung, 1) for rung in rungs)
        shortest = [steps for rungs in ladders for steps in itertools.islice(_ever_longer(rungs, costs, recipe), 1)]
        least = min((_needed(steps, ladders, costs) for steps in shortest), default=math.inf)
        why = f"the shortest step would take {least:.0f} s" if roomy else "its activations find no room on the disk"
        console.say(f"            no fine-tuning: {why}")
    console.say(f"            {plan.seconds:.0f} s in all")
    if len(plan.steps) > 1:
        console.say("            a step not better on validation photos is undone; if clearly worse, it is the last")


def size_in_time(image_size: int, count: int, rate: float, seconds: float) -> int:
    """Return the image size at which embedding every photo takes no more than its share of the time, in pixels.

    Args:
        image_size: the backbone's own, which is the largest.
        count: of photos.
        rate: photos/s of embedding at the backbone's own size.
        seconds: of the budget.
    """
    share = EMBEDDING_SHARE * seconds * rate / max(1, count)
    if share >= 1:
        return image_size
    return max(SMALLEST_IMAGE, int(image_size * math.sqrt(share)) // 32 * 32)


def count_in_time(rate: float, logits_rate: float, num_classes: int, seconds: float) -> int:
    """Return how many photos can be embedded and a probe be fitted on them in the time that both may take together.

    Args:
        rate: photos/s of embedding.
        logits_rate: as `logits_per_second` measures it.
        num_classes: of the photos.
        seconds: of the budget.
    """
    if math.isinf(seconds):
        return sys.maxsize
    return int(PART_SHARE * seconds / (1 / rate + FIT_EVALUATIONS * num_classes / logits_rate))


def time_limit(plan: Plan, number: int, recipe: Recipe, elapsed: float) -> float | None:
    """Return what a step may take of the seconds left: its share by the forecasts, the last one's refit included.

    None where there is no limit: no budget, or epochs that were asked for.
    """
    if recipe.budget == "none" or recipe.epochs is not None:
        return None
    ahead = sum(step.seconds for step in plan.steps[number:])
    heads = sum(step.head_seconds for step in plan.steps[number:])
    if recipe.refits:
        ahead += refit_seconds(plan.steps[-1])
        heads += plan.steps[-1].head_seconds
    left = recipe.budget_seconds - elapsed - plan.closing_seconds - heads
    return max(1.0, left * plan.steps[number].seconds / ahead)
