"""Augmented views in 8-bit integers: tried where that should pay, kept where it does and where a probe holds.

Plain views are always computed in the engine's own precision, and with them everything that is measured. What 8 bits
change of an augmented view is one more disturbance of it, and costs a probe nothing as long as it is small
(docs/experiments.md).
"""

from __future__ import annotations

import importlib.util

from torch import nn

from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.network.cut import boundary_of
from headstart.recipe import Recipe
from headstart.training.costs import PROBE_SHARE, PROBE_VIEWS
from headstart.training.data import LEARNING, TrainingData
from headstart.training.hardware import multiplies_int8, num_processes
from headstart.training.plan import ladder
from headstart.training.probe import Floats, HeldRows, fit_probe, loss_and_accuracy

# Quantising and looking whether it holds; how much faster views then are, decoding included (measured on two cores with
# VNNI); how much more has to be spared than trying takes, and the share of the time left that it may take.
TRIAL_SECONDS, EXPECTED_GAIN = 12.0, 1.6
LEAST_RETURN, TRIAL_SHARE = 1.5, 0.1
# What it has to gain, and what a probe may lose by it of its accuracy on photos seen in 8 bits.
LEAST_GAIN, MOST_LOSS = 1.15, 0.02
# Rows that the probe is fitted on, with one regularisation, and photos that it is measured on.
FITTED_ROWS, MEASURED_PHOTOS, REGULARISATION = 5_000, 300, 1e-3


def choose_int8_views(
    data: TrainingData, network: nn.Module, recipe: Recipe, weights: Floats, elapsed: float, console: Console
) -> bool:
    """Say whether augmented views are computed in 8-bit integers, and have the embedder do it.

    With a plan, as that says.

    Args:
        data: the photos, split, their plain views embedded.
        network: to be trained.
        recipe: its plan, where it has one, is followed.
        weights: a weight per class.
        elapsed: seconds since the run began.
        console: where it is told.

    Raises:
        HeadstartError: when a plan has views in 8-bit integers and NNCF, which makes them, is not installed.
    """
    if data.embedder.choice.name != "openvino" or recipe.from_scratch:
        return False
    if recipe.plan is not None:
        return recipe.plan.int8_views and _as_planned(data, network, recipe)
    possible = data.embedder.choice.precision == "float32" and multiplies_int8() and num_processes() == 1
    return recipe.int8_views and possible and _tried(data, network, recipe, weights, elapsed, console)


def _as_planned(data: TrainingData, network: nn.Module, recipe: Recipe) -> bool:
    if not _installed():
        raise HeadstartError(
            "--recipe: its plan has views in 8-bit integers, which needs nncf, which is not installed.",
            "Install it with: pip install 'headstart[int8]', or plan anew with --no-int8-views.",
        )
    data.embedder.put_views_in_int8(data.photos["train"], _boundaries(data, network, recipe))
    return True


def _tried(
    data: TrainingData, network: nn.Module, recipe: Recipe, weights: Floats, elapsed: float, console: Console
) -> bool:
    embedder, photos = data.embedder, data.photos["train"]
    rate = embedder.speed(photos, (1,))
    if not pays(len(data.photos[LEARNING]), rate, recipe.budget_seconds - elapsed):
        return False
    if not _installed():
        console.say("Int8        pip install 'headstart[int8]' would make augmented views faster on this processor")
        return False
    embedder.put_views_in_int8(photos, _boundaries(data, network, recipe))
    gain = embedder.speed(photos, (1,)) / rate
    before, after, count = _accuracies(data, weights)
    told = (
        f"{gain:.1f} times as fast; a probe is right on {100 * after:.1f}% of {count:,} validation photos so seen, "
        f"{100 * before:.1f}% without"
    )
    if gain < LEAST_GAIN or before - after > MOST_LOSS:
        embedder.put_views_back()
        console.say(f"Int8        not used for augmented views: {told}")
        return False
    console.say(f"Int8        augmented views in 8-bit integers: {told}")
    return True


def _installed() -> bool:
    return importlib.util.find_spec("nncf") is not None


def pays(photos: int, rate: float, seconds_left: float) -> bool:
    """Say whether trying it should pay, and the time is there.

    What is sure to be spared is of one augmented view of each photo for fine-tuning, and of the probe's where those
    find the time.

    Args:
        photos: for training and validation.
        rate: of augmented views a second as they are computed now.
        seconds_left: of the budget.
    """
    of_probe = (PROBE_VIEWS - 1) * photos / rate
    augmented = photos / rate + (of_probe if of_probe < PROBE_SHARE * seconds_left else 0.0)
    spared = augmented * (1 - 1 / EXPECTED_GAIN)
    return spared > LEAST_RETURN * TRIAL_SECONDS and TRIAL_SECONDS < TRIAL_SHARE * seconds_left


def _boundaries(data: TrainingData, network: nn.Module, recipe: Recipe) -> list[int]:
    """Return the boundaries above 0 that augmented views may be wanted at."""
    parts = [*(ladder(network) if recipe.unfreeze is None else (recipe.unfreeze,))]
    parts += [step.unfreeze for step in recipe.plan.steps] if recipe.plan else []
    return sorted({*(boundary_of(network, part) for part in parts), data.embedder.features_boundary} - {0})


def _accuracies(data: TrainingData, weights: Floats) -> tuple[float, float, int]:
    """Return a probe's accuracy on validation photos as they are stored and in 8 bits, and on how many."""
    features, fitted = data.some_features(1, FITTED_ROWS)
    head, _ = fit_probe(features, fitted, features, fitted, weights, (REGULARISATION,))
    rows = data.some_rows(MEASURED_PHOTOS, split="validation")
    photos, labels = [data.photos["validation"][row] for row in rows], data.labels["validation"][rows]
    stored, in_int8 = data.embedder.features(photos, [0]), HeldRows([data.embedder.features_in_int8(photos)])
    before, after = (loss_and_accuracy(head.logits(seen), labels)[1] for seen in (stored, in_int8))
    return before, after, len(rows)
