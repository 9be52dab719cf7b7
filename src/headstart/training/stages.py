"""The training stages of a run: from stored activations to the weights that are kept, and what each one says."""

from __future__ import annotations

import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from headstart.console import Console
from headstart.errors import counted
from headstart.evaluation.calibration import calibrated_loss_and_accuracy
from headstart.evaluation.metrics import wilson_interval
from headstart.network.cut import boundary_of, set_trainable, suffix
from headstart.recipe import Part, Recipe, Step
from headstart.tracking import History
from headstart.training.data import LEARNING, TrainingData
from headstart.training.example_head import ExampleHead, fit_example_head
from headstart.training.finetuning import fine_tune, suffix_logits
from headstart.training.hardware import hardware
from headstart.training.heads import HELD_ROWS, set_head, suffix_features
from headstart.training.keeping import Kept, Tuned
from headstart.training.optimisation import FineTuning
from headstart.training.probe import (
    Features,
    Floats,
    Labels,
    LinearHead,
    class_weights,
    fit_probe,
    loss_and_accuracy,
)
from headstart.training.progress import Epoch, epochs_left
from headstart.training.state import load_state, trained_state

# The largest class may have this many times the photos of the smallest before classes are weighted.
BALANCED_UP_TO = 3.0
EXAMPLE_VIEWS = 4
# Regularisation of the probe that training starts from: a multiple of what validation chose, and no less than a number
# (docs/experiments.md).
START_MULTIPLE, LEAST_AT_START = 10.0, 1.0


def choose_class_weights(data: TrainingData, recipe: Recipe, console: Console) -> Floats:
    """Choose a weight per class for the loss."""
    labels, num_classes = data.labels["train"], len(data.class_names)
    counts = np.bincount(labels, minlength=num_classes)
    unbalanced = counts.max() > BALANCED_UP_TO * counts.min()
    if recipe.class_weights == "balanced" or (recipe.class_weights == "auto" and unbalanced):
        why = f"training classes have {counts.min():,} to {counts.max():,} photos" if unbalanced else "asked for"
        console.say(f"Weights     rare classes weigh more in the loss ({why})")
        return class_weights(labels, num_classes)
    return np.ones(num_classes, np.float32)


def head_views(recipe: Recipe) -> int:
    """Return how many views of each photo the head is fitted on."""
    if recipe.head == "example":
        return recipe.num_views or EXAMPLE_VIEWS
    return recipe.plan.probe_views if recipe.plan else 1


def embed_for_head(data: TrainingData, recipe: Recipe, console: Console) -> None:
    """Embed the views that the head is fitted on."""
    split = LEARNING if recipe.refits else "train"
    embed_views(data, split, data.embedder.features_boundary, head_views(recipe), console)


def fit_head(
    data: TrainingData, recipe: Recipe, weights: Floats, history: History, console: Console
) -> tuple[LinearHead, Kept, dict[str, Any]]:
    """Fit a linear head on the stored features: the probe, or the Keras example's head."""
    started = time.perf_counter()
    labels, validation = data.labels["train"], (data.features("validation"), data.labels["validation"])
    result: dict[str, Any] = {}
    views = head_views(recipe)
    stage = "example head" if recipe.head == "example" else "probe"
    add = partial(history.add, stage)
    if recipe.head == "example":
        num_classes = len(data.class_names)
        settings = ExampleHead(recipe.example_epochs, recipe.example_batch_size, recipe.example_learning_rate)
        rows = data.feature_views(views)
        head, _ = fit_example_head(rows, labels, *validation, num_classes, recipe.seed, settings, add)
        detail = f"batch normalisation, dropout 0.2, dense; Adam, {recipe.example_epochs} epochs"
    else:
        features, tiled = data.some_features(views, recipe.plan.searched_rows if recipe.plan else len(labels) * views)
        head, path = fit_probe(features, tiled, *validation, weights, on_step=add)
        best = min(path, key=lambda step: step.validation_loss)
        searched = f", on {len(tiled):,} of {len(labels) * views:,} rows" if len(tiled) < len(labels) * views else ""
        if searched and not recipe.refits:
            strengths = (best.regularisation,)
            every, tiled = data.features("train", views), np.tile(labels, views)
            head, _ = fit_probe(every, tiled, *validation, weights, strengths)
        result["regularisation"] = best.regularisation
        result["operations"] = sum(step.operations for step in path)
        detail = (
            f"{counted(views, 'view')}; regularisation {best.regularisation:.1g} of {len(path)} by validation loss"
            f"{searched}"
        )
    seconds = time.perf_counter() - started
    logits = head.logits(validation[0])
    result |= _stage(logits, validation[1], seconds)
    result["parameters"] = head.weight.size + head.bias.size
    console.say(f"{stage.capitalize():<11} validation accuracy {_stage_text(result)}, in {seconds:.1f} s ({detail})")
    measured = calibrated_loss_and_accuracy(logits, validation[1])
    kept = Kept(
        stage,
        data.embedder.features_boundary,
        data.image_size,
        *measured,
        regularisation=result.get("regularisation"),
        logits=logits,
    )
    return head, kept, {stage: result}


def embed_step(data: TrainingData, network: nn.Module, step: Step, recipe: Recipe, console: Console) -> None:
    """Embed what a step trains on and is validated on; from pixels there is nothing to embed."""
    boundary = boundary_of(network, step.unfreeze)
    if boundary:
        embed_views(data, LEARNING if recipe.refits_after(step) else "train", boundary, step.num_views, console)
        embed_views(data, "validation", boundary, 1, console)


def embed_views(data: TrainingData, split: str, boundary: int, num_views: int, console: Console) -> None:
    """Embed the views of a split's photos that are not in the store yet."""
    started = time.perf_counter()
    photos, views = data.photos[split], range(num_views)
    _, computed = data.embedder.embed(photos, views, (boundary,), console, "views")
    wanted = len({photo.digest for photo in photos}) * num_views
    if computed:
        tell_speed("", "view", wanted, computed, time.perf_counter() - started, console)


def tell_speed(what: str, noun: str, wanted: int, computed: int, seconds: float, console: Console) -> None:
    """Say how many photos or views were computed, how fast, and how many needed not be."""
    spared = wanted - computed
    one, more = "1 was in the store or is a copy", f"{spared:,} were in the store or are copies"
    stored = f", {one if spared == 1 else more}" if spared else ""
    speed = f" in {seconds:.1f} s ({computed / seconds:.0f} photos/s)" if computed else ""
    console.say(f"{what:<11} {counted(computed, noun)}{speed}{stored}")


def _stage(logits: Floats, labels: Labels, seconds: float) -> dict[str, Any]:
    """Return what a stage measured on the validation photos."""
    loss, accuracy = loss_and_accuracy(logits, labels)
    interval = wilson_interval(round(accuracy * len(labels)), len(labels))
    measured = {"accuracy": accuracy, "accuracy_interval": list(interval), "log_loss": loss, "photos": len(labels)}
    return {"validation": measured, "seconds": seconds}


def _stage_text(stage: dict[str, Any]) -> str:
    return f"{100 * stage['validation']['accuracy']:.1f}%, log loss {stage['validation']['log_loss']:.3f}"


def tune_suffix(
    network: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    step: Step,
    kept: Kept,
    seconds: float | None,
    weights: Floats,
    checkpoints: Path,
    history: History,
    console: Console,
) -> Tuned:
    """Train a part of the network, from the best weights so far or from random ones, within a time limit."""
    boundary = boundary_of(network, step.unfreeze)
    trainable = suffix(network, boundary, data.embedder.preprocessing, recipe.dropout_rate)
    before = trained_state(trainable, recipe.train_batch_norm)
    if kept.regularisation is not None:
        set_head(trainable, softer_probe(trainable, boundary, step, data, recipe, weights, kept.regularisation))
    elif kept.blend is not None:
        set_head(trainable, kept.blend.trained)
    start = trained_state(trainable, recipe.train_batch_norm)
    changing = set_trainable(trainable, recipe.train_batch_norm)
    count = sum(value.numel() for value in changing.values() if value.requires_grad)
    total = sum(parameter.numel() for parameter in network.parameters())
    source = f"from {counted(step.num_views, 'stored view')}" if boundary else "from pixels"
    source += photos_text(step.one_in)
    what = "Training from scratch" if recipe.from_scratch else f"Fine-tuning {part_text(step.unfreeze)}"
    size = f", {data.image_size} pixels" if step.image_size else ""
    products = ", products in bfloat16" if hardware(recipe.precision).bfloat16_products else ""
    console.say(f"{what}: {count:,} of {total:,} parameters, {source}{size}{products}")
    validation, labels = data.activations("validation", boundary), data.labels["validation"]
    stage = "from scratch" if recipe.from_scratch else f"fine-tuning {step_name(step.unfreeze)}"

    def tell(epoch: Epoch) -> None:
        history.add(stage, epoch)
        console.say(
            f"            epoch {epoch.epoch:>2}: training loss {epoch.train_loss:.3f}, calibrated validation loss "
            f"{epoch.validation_loss:.3f}, accuracy {100 * epoch.validation_accuracy:.1f}%, {epoch.seconds:.1f} s"
            f"{'' if boundary else f' ({len(train) / epoch.seconds:.0f} photos/s)'}"
        )

    settings = fine_tuning(recipe, step.batch_size, step.epochs, seconds)
    train = data.training_rows("train", boundary, step.num_views)
    checkpoint = checkpoints / f"{data.digest}-{boundary}.safetensors"
    end, epochs = fine_tune(
        trainable,
        train,
        data.labels["train"],
        validation,
        labels,
        weights,
        settings,
        recipe.seed,
        checkpoint,
        tell,
    )
    taken = sum(epoch.seconds for epoch in epochs)
    stopped = ""
    if len(epochs) < step.epochs and not epochs_left(epochs, settings):
        limit = "--budget" if recipe.time_limit is None else "--time-limit"
        stopped = f"stopped after {len(epochs)} of {step.epochs} epochs: {limit}"
        console.say(f"            {stopped}")
    load_state(trainable, end)
    logits = suffix_logits(trainable, validation)
    result = _stage(logits, labels, taken) | {
        "epochs": len(epochs),
        "stopped": stopped,
        "parameters": count,
        "photos_per_second": len(train) * len(epochs) / taken,
    }
    return Tuned(trainable, step, boundary, before, start, end, logits, stage, {stage: result}, kept.regularisation)


def softer_probe(
    trainable: nn.Sequential,
    boundary: int,
    step: Step,
    data: TrainingData,
    recipe: Recipe,
    weights: Floats,
    chosen: float,
    split: str = "train",
) -> LinearHead:
    """Fit the probe that training starts from: more regularised than was chosen, and on photos of the step's size.

    The features are about to change, and a head that leans on their smallest differences loses more by that
    (docs/experiments.md).
    """
    features: Features
    if step.image_size is None:
        features, labels = data.whole.some_features(head_views(recipe), HELD_ROWS, split)
    else:  # from stored activations or pixels, as they are there already
        features, labels = suffix_features(trainable, data, boundary, split)
    strengths = (max(START_MULTIPLE * chosen, LEAST_AT_START),)
    head, _ = fit_probe(features, labels, features, labels, weights, strengths)
    return head


def fine_tuning(recipe: Recipe, batch_size: int, epochs: int, seconds: float | None = None) -> FineTuning:
    """Return the settings of one step: the recipe's, with its epochs and the lesser of two time limits.

    Batches are those planned, unless the recipe says otherwise.
    """
    shared = {field.name: getattr(recipe, field.name) for field in fields(FineTuning)}
    limits = [limit for limit in (recipe.time_limit, seconds) if limit is not None]
    chosen = {"batch_size": recipe.batch_size or batch_size, "epochs": epochs, "time_limit": min(limits, default=None)}
    return FineTuning(**{**shared, **chosen})


def part_text(part: Part, image_size: int | None = None) -> str:
    """Say what trains, in words, and on photos of which size, where that is not the run's."""
    size = f", at {image_size} pixels" if image_size else ""
    if isinstance(part, int):
        return f"the last {'block' if part == 1 else f'{part} blocks'} and the head{size}"
    named = {"all": "the whole network", "head": "the head convolution and the classifier"}
    return named.get(part, f"{part} and what follows") + size


def photos_text(one_in: int, count: int | None = None) -> str:
    """Say of which part of the photos something is, and how many those are; nothing where it is of all."""
    if one_in == 1:
        return ""
    return f" of 1 in {one_in} photos" + (f" ({count:,})" if count is not None else "")


def step_name(part: Part) -> str:
    """Return what trains as a short name."""
    if isinstance(part, int):
        return "last block" if part == 1 else f"last {part} blocks"
    return part
