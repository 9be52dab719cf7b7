"""Planning a run within its time budget: what is measured on this computer, and what is chosen for it.

The probe comes first, whatever the budget: it takes one pass of the frozen network. What time is left is for
fine-tuning, step by step from the last stages towards the pixels. A deeper step gains more on photos unlike ImageNet's
and costs more for each photo, so the deepest ladder is taken whose steps get enough epochs (docs/experiments.md). Where
photos are too many for any, the last stages see a part of them.
"""

from __future__ import annotations

import itertools
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from headstart.console import Console
from headstart.errors import HeadstartError, counted
from headstart.network.cut import boundary_of, suffix, units
from headstart.peaks import product_speed
from headstart.photos.split import SPLITS
from headstart.recipe import Part, Plan, Recipe, Step
from headstart.training.costs import (
    FEWEST_SEARCHED,
    FIT_EVALUATIONS,
    PROBE_VIEWS,
    STORED_BYTES,
    UPDATES_OF_MANY,
    Costs,
    Rung,
    refit_seconds,
    rung_of,
)
from headstart.training.data import TrainingData
from headstart.training.finetuning import training_speed
from headstart.training.keeping import blends
from headstart.training.stages import fine_tuning, part_text, photos_text

# With less than this there is no time to fine-tune, nor to measure how fast it would be.
LEAST_SECONDS = 15.0
# The share of the peak of matrix products that evaluations of a head reach.
PROBE_EFFICIENCY = 0.4
# Writing the classifier and the report; ranking suspect labels, and that for each photo and class (two cores).
CLOSING_SECONDS, RANKING_SECONDS, RANKING_SECONDS_PER_LOGIT = 4.0, 1.0, 8e-6
# Of few photos, small batches learn more in the same time (docs/experiments.md); of many there are steps enough.
FEW_PHOTOS, BATCH_OF_FEW, BATCH_OF_MANY = 2000, 8, 16
# Where no step fits on photos of the run's size, fine-tuning sees smaller ones, of these shares of it
# (docs/experiments.md).
TUNING_SHARES = (3 / 4, 5 / 8)
# Where not even the last stages fit on all photos, one in so many is tried.
ONE_IN = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
# What embedding the photos once may take of the budget, before they are made smaller; and what that and fitting the
# probe may take, before a part of them is left out.
EMBEDDING_SHARE, PART_SHARE = 0.4, 0.7
SMALLEST_IMAGE = 128


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
    seconds = time.perf_counter() - started + spoken_for + costs.needed(steps, [rung for of in ladders for rung in of])
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


def _measured(recipe: Recipe, network: nn.Module, data: TrainingData) -> Costs:
    photos = data.photos["train"]
    batch_size = recipe.batch_size or (BATCH_OF_FEW if len(photos) <= FEW_PHOTOS else BATCH_OF_MANY)
    parts = [one_in for one_in in ONE_IN if len(photos) >= one_in * batch_size * UPDATES_OF_MANY]
    return Costs(
        train_photos=len(photos),
        validation_photos=len(data.photos["validation"]),
        test_photos=len(data.photos["test"]),
        # An augmented view takes longer than a plain one, where photos are small much longer.
        embedded_per_second=math.inf if recipe.from_scratch else data.embedder.speed(photos, (0, 1)),
        decoded_per_second=data.embedder.decoding_speed(photos),
        logits_per_second=logits_per_second(network),
        free_bytes=shutil.disk_usage(data.embedder.cache).free,
        refit=recipe.refits,
        batch_size=batch_size,
        num_classes=len(data.class_names),
        blends=blends(recipe),
        in_parts={one_in: len(data.rows_of_part(one_in)) for one_in in parts},
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
    """Return the ladders that the rungs make, the best first: larger photos, the deeper ones, at last parts of them.

    Args:
        rungs: from the last stages towards the pixels, on photos of the run's size.
        own_size: that size, in pixels.
        costs: what steps cost.
        recipe: a depth that it gives is the only one; an image size that it gives rules out smaller photos, epochs
            those and parts.
    """
    fixed = recipe.epochs is not None or recipe.from_scratch or recipe.head != "probe"
    parts = () if fixed else costs.in_parts
    smaller = {max(SMALLEST_IMAGE, round(share * own_size / 32) * 32) for share in TUNING_SHARES}
    tried = () if fixed or recipe.image_size else (size for size in smaller if size < own_size)
    sizes = [own_size, *sorted(tried, reverse=True)]
    depths = range(len(rungs), 0, -1) if recipe.unfreeze is None else (1,)
    ladders: list[list[Rung]] = []
    for size in sizes:
        sized = [rung.at(size, own_size, costs.decoded_per_second) for rung in rungs]
        ladders += [sized[:depth] for depth in depths]
        ladders += [[replace(sized[0], one_in=one_in)] for one_in in parts]
    return ladders


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
        for steps in costs.ever_longer(chosen, recipe):
            if recipe.unfreeze is None or not shortest:
                shortest = steps
            if costs.needed(steps, chosen) > seconds:
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


def _rung(part: Part, recipe: Recipe, network: nn.Module, data: TrainingData, costs: Costs) -> Rung:
    boundary = boundary_of(network, part)
    trainable = suffix(network, boundary, data.embedder.preprocessing, recipe.dropout_rate)
    shape = data.embedder.row_shape(boundary)
    speed = training_speed(trainable, shape, fine_tuning(recipe, costs.batch_size, epochs=1))
    return Rung(part, boundary, speed, costs.embedded_per_second, 2 * math.prod(shape) if boundary else 0)


def _tell(
    plan: Plan, ladders: Sequence[Sequence[Rung]], costs: Costs, seconds_left: float, recipe: Recipe, console: Console
) -> None:
    rungs, every = ladders[0] if ladders else (), [rung for of in ladders for rung in of]  # the first has all depths
    left = "no time limit" if math.isinf(seconds_left) else f"{max(0, seconds_left):.0f} s left of {recipe.budget}"
    speeds = ", ".join(f"{rung.part} {rung.photos_per_second:.0f}" for rung in rungs)
    trained = f", training {speeds}" if rungs else ""
    console.say(f"Plan        {left}; photos/s here: embedding {costs.embedded_per_second:.0f}{trained}")
    if not recipe.from_scratch:
        console.say(f"            a head on {counted(plan.probe_views, 'view')} of each photo")
    for number, step in enumerate(plan.steps, 1):
        rung, here = rung_of(step, every), costs.of_part(step.one_in)
        stored = here.train_photos * step.num_views * rung.row_bytes / 1e6
        views = f"{counted(step.num_views, 'view')} stored ({stored:,.0f} MB)" if rung.boundary else "views made anew"
        console.say(
            f"            {number}. {part_text(step.unfreeze, step.image_size)}: {counted(step.epochs, 'epoch')}"
            f"{photos_text(step.one_in, here.train_photos)}, "
            f"batches of {step.batch_size}, {views}, about {here.seconds(step, rung):.0f} s"
        )
    if any(step.image_size for step in plan.steps):
        console.say(f"            at {plan.image_size} pixels these steps would take too long")
    if rungs and not plan.steps:
        roomy = all(rung.boundary == 0 or costs.views(rung, 1) for rung in rungs)
        shortest = [steps for of in ladders for steps in itertools.islice(costs.ever_longer(of, recipe), 1)]
        least = min((costs.needed(steps, every) for steps in shortest), default=math.inf)
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
    if recipe.refits_after(plan.steps[-1]):
        ahead += refit_seconds(plan.steps[-1])
        heads += plan.steps[-1].head_seconds
    left = recipe.budget_seconds - elapsed - plan.closing_seconds - heads
    return max(1.0, left * plan.steps[number].seconds / ahead)
