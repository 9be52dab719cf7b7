"""Refitting what was chosen on training and validation photos together, so that no photo is spent on choosing alone."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from headstart.console import Console
from headstart.recipe import Recipe
from headstart.training.data import LEARNING, TrainingData
from headstart.training.finetuning import fine_tune
from headstart.training.heads import blend_again, set_head
from headstart.training.keeping import Kept, Tuned
from headstart.training.probe import Floats, LinearHead, fit_probe
from headstart.training.stages import fine_tuning, head_views, softer_probe
from headstart.training.state import interpolated, load_state, trained_state

# With what share of the learning rates the chosen weights train on validation photos as well (docs/experiments.md).
REFIT_RATE = 0.25


def refit(
    network: nn.Module,
    kept: Kept,
    data: TrainingData,
    recipe: Recipe,
    stages: dict[str, Any],
    weights: Floats,
    checkpoints: Path,
    console: Console,
) -> LinearHead:
    """Fit what was chosen on training and validation photos: the probe anew, a tuned network by a few more epochs.

    A network whose step leaves no epochs for it stays as it is.

    Returns:
        The probe that was fitted anew, with which a tuned network is compared.
    """
    started = time.perf_counter()
    views = head_views(recipe)
    rows, labels = data.features(LEARNING, views), np.tile(data.labels[LEARNING], views)
    head, path = fit_probe(rows, labels, rows, labels, weights, (stages["probe"]["regularisation"],))
    stages["probe"]["refit_operations"] = path[0].operations
    if kept.tuned is None:
        set_head(network, head)
    elif not recipe.refits_after(kept.step):
        console.say("Refit       left out, for lack of time")
        return head
    else:
        seen = kept.seen_of(data)
        _train_on(kept.tuned, kept.share, seen, recipe, weights, checkpoints)
        if kept.blend is not None:
            blend_again(kept.tuned.suffix, kept.blend, seen, kept.boundary, LEARNING, weights)
    seconds = time.perf_counter() - started
    console.say(f"Refitted    on all {len(data.labels[LEARNING]):,} training and validation photos, in {seconds:.1f} s")
    return head


def _train_on(
    tuned: Tuned,
    share: float,
    data: TrainingData,
    recipe: Recipe,
    weights: Floats,
    folder: Path,
) -> None:
    """Train on from where fine-tuning ended, and go as far of the way there as was kept.

    The way begins where training did; if that was at a probe, it is at one of all these photos now.
    """
    settings = replace(
        fine_tuning(recipe, tuned.step.batch_size, tuned.step.refit_epochs),
        learning_rate=REFIT_RATE * recipe.learning_rate,
        head_learning_rate=REFIT_RATE * recipe.head_learning_rate,
    )
    rows = data.training_rows(LEARNING, tuned.boundary, tuned.step.num_views)
    labels = data.labels[LEARNING]
    checkpoint = folder / f"{data.digest}-{tuned.boundary}-refit.safetensors"
    start = tuned.start
    if tuned.regularisation is not None and share < 1:
        load_state(tuned.suffix, start)
        chosen = tuned.regularisation
        head = softer_probe(tuned.suffix, tuned.boundary, tuned.step, data, recipe, weights, chosen, LEARNING)
        set_head(tuned.suffix, head)
        start = trained_state(tuned.suffix, recipe.train_batch_norm)
    load_state(tuned.suffix, tuned.end)
    end, _ = fine_tune(tuned.suffix, rows, labels, None, labels[:0], weights, settings, recipe.seed + 1, checkpoint)
    load_state(tuned.suffix, interpolated(start, end, share))
