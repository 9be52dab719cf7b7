"""The training stages of a run: from stored activations to the weights that are kept, and what each one says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from headstart.console import Console
from headstart.errors import counted
from headstart.evaluation.metrics import wilson_interval
from headstart.network.cut import set_trainable, suffix
from headstart.photos.catalog import Catalog
from headstart.photos.split import SPLITS
from headstart.photos.views import Preprocessing
from headstart.recipe import Recipe
from headstart.training.embedding import Embedder, Photo
from headstart.training.example_head import ExampleHead, fit_example_head
from headstart.training.finetuning import (
    Epoch,
    FineTuning,
    Rows,
    State,
    TrainingRows,
    ViewRows,
    fine_tune,
    interpolated,
    load_state,
    out_of_time,
    suffix_logits,
    trained_state,
)
from headstart.training.probe import Floats, Labels, LinearHead, class_weights, fit_probe, loss_and_accuracy
from headstart.training.store import StoredRows

# The largest class may have this many times the photos of the smallest before classes are weighted.
BALANCED_UP_TO = 3.0
INTERPOLATION_SHARES = (0.25, 0.5, 0.75)


def photos_of(table: pd.DataFrame) -> list[Photo]:
    """Return the photos of a catalog's rows."""
    return [Photo(path, digest) for path, digest in zip(table["path"], table["digest"], strict=True)]


class TrainingData:
    """The photos of each split with their labels as indices, and what the store holds of them."""

    def __init__(self, catalog: Catalog, embedder: Embedder, boundary: int, num_views: int) -> None:
        self.class_names = catalog.class_names
        self.num_views = num_views
        self._embedder = embedder
        self._boundary = boundary
        # What a checkpoint belongs to: these photos in this split.
        self.digest = catalog.digest
        index = {name: number for number, name in enumerate(catalog.class_names)}
        self.photos: dict[str, list[Photo]] = {}
        self.labels: dict[str, Labels] = {}
        for split in SPLITS:
            table = catalog.photos[catalog.photos["split"] == split]
            self.photos[split] = photos_of(table)
            self.labels[split] = np.array([index[name] for name in table["label"]], np.int64)

    def features(self, split: str, view: int = 0) -> StoredRows:
        """Return the (n, num_features) pooled features of a split."""
        return self._embedder.features(self.photos[split], view)

    def activations(self, split: str, view: int = 0) -> Rows:
        """Return the activations of a split at the boundary."""
        return self._embedder.rows(self.photos[split], view, self._boundary)

    def feature_views(self) -> ViewRows:
        """Return the pooled features of all stored views of the training photos."""
        return ViewRows([self.features("train", view) for view in range(self.num_views)])

    def training_rows(self) -> TrainingRows:
        """Return the views of the training photos at the boundary: stored, or, of the pixels, new in each epoch."""
        if self._boundary == 0:
            return self._embedder.fresh_views(self.photos["train"])
        return ViewRows([self.activations("train", view) for view in range(self.num_views)])


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


def fit_head(
    data: TrainingData, recipe: Recipe, weights: Floats, console: Console
) -> tuple[LinearHead, list[dict[str, Any]], dict[str, Any]]:
    """Fit a linear head on the stored features: the probe, or the Keras example's head."""
    started = time.perf_counter()
    labels, validation = data.labels["train"], (data.features("validation"), data.labels["validation"])
    if recipe.head == "example":
        num_classes = len(data.class_names)
        settings = ExampleHead(recipe.example_epochs, recipe.example_batch_size, recipe.example_learning_rate)
        views = data.feature_views()
        head, epochs = fit_example_head(views, labels, *validation, num_classes, recipe.seed, settings)
        stage, history = "example head", _stage_history("example head", epochs)
        detail = f"batch normalisation, dropout 0.2, dense; Adam, {recipe.example_epochs} epochs"
    else:
        head, path = fit_probe(data.features("train"), labels, *validation, weights)
        stage, history = (
            "probe",
            [{"stage": "probe", "epoch": n, **asdict(step)} for n, step in enumerate(path, 1)],
        )
        best = min(path, key=lambda step: step.validation_loss)
        detail = f"regularisation {best.regularisation:.1g} of {len(path)} tried, by validation loss"
    seconds = time.perf_counter() - started
    result = _stage(head.logits(validation[0]), validation[1], seconds)
    result["parameters"] = head.weight.size + head.bias.size
    console.say(f"{stage.capitalize():<11} validation accuracy {_stage_text(result)}, in {seconds:.1f} s ({detail})")
    return head, history, {stage: result}


def _stage(logits: Floats, labels: Labels, seconds: float) -> dict[str, Any]:
    """Return what a stage measured on the validation photos."""
    loss, accuracy = loss_and_accuracy(logits, labels)
    interval = wilson_interval(round(accuracy * len(labels)), len(labels))
    measured = {"accuracy": accuracy, "accuracy_interval": list(interval), "log_loss": loss, "photos": len(labels)}
    return {"validation": measured, "seconds": seconds}


def _stage_text(stage: dict[str, Any]) -> str:
    return f"{100 * stage['validation']['accuracy']:.1f}%, log loss {stage['validation']['log_loss']:.3f}"


def _stage_history(stage: str, epochs: Sequence[Epoch]) -> list[dict[str, Any]]:
    return [{"stage": stage, **asdict(epoch)} for epoch in epochs]


def history_table(history: list[dict[str, Any]]) -> pd.DataFrame:
    """Make the table of every epoch of every stage; for the probe, an epoch is one strength of regularisation."""
    columns = ["stage", *(field.name for field in fields(Epoch)), "regularisation"]
    return pd.DataFrame(history).reindex(columns=columns)


def set_classifier(network: nn.Module, head: LinearHead) -> None:
    """Put a linear head into a network as its classifier."""
    classifier = network.get_submodule("classifier")
    with torch.no_grad():
        classifier.get_parameter("weight").copy_(torch.from_numpy(head.weight))
        classifier.get_parameter("bias").copy_(torch.from_numpy(head.bias))


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned suffix: its states before and after, what it measured, and its history."""

    suffix: nn.Module
    start: State
    end: State
    stage: str
    stages: dict[str, Any]
    history: list[dict[str, Any]]


def tune_suffix(
    network: nn.Module,
    boundary: int,
    preprocessing: Preprocessing,
    data: TrainingData,
    recipe: Recipe,
    weights: Floats,
    checkpoints: Path,
    console: Console,
) -> Tuned:
    """Train the suffix: from the probe, or from random weights."""
    trainable = suffix(network, boundary, preprocessing, recipe.dropout_rate)
    start = trained_state(trainable, recipe.train_batch_norm)
    changing = set_trainable(trainable, recipe.train_batch_norm)
    count = sum(value.numel() for value in changing.values() if value.requires_grad)
    total = sum(parameter.numel() for parameter in network.parameters())
    source = "from stored activations" if boundary else "from pixels"
    what = "Training from scratch" if recipe.from_scratch else f"Fine-tuning {_part_text(recipe.unfreeze)}"
    console.say(f"{what}: {count:,} of {total:,} parameters, {source}")
    validation, labels = data.activations("validation"), data.labels["validation"]

    def tell(epoch: Epoch) -> None:
        console.say(
            f"            epoch {epoch.epoch:>2}: training loss {epoch.train_loss:.3f}, validation loss "
            f"{epoch.validation_loss:.3f}, accuracy {100 * epoch.validation_accuracy:.1f}%, {epoch.seconds:.1f} s"
            f"{'' if boundary else f' ({len(train) / epoch.seconds:.0f} photos/s)'}"
        )

    settings = FineTuning(**{field.name: getattr(recipe, field.name) for field in fields(FineTuning)})
    train = data.training_rows()
    checkpoint = checkpoints / f"{data.digest}.safetensors"
    end, epochs = fine_tune(
        trainable, train, data.labels["train"], validation, labels, weights, settings, recipe.seed, checkpoint, tell
    )
    seconds = sum(epoch.seconds for epoch in epochs)
    stopped = ""
    if len(epochs) < recipe.epochs and out_of_time(epochs, recipe.time_limit):
        stopped = f"stopped after {len(epochs)} of {recipe.epochs} epochs: --time-limit"
        console.say(f"            {stopped}")
    load_state(trainable, end)
    stage = "from scratch" if recipe.from_scratch else "fine-tuning"
    result = _stage(suffix_logits(trainable, validation), labels, seconds) | {
        "epochs": len(epochs),
        "stopped": stopped,
        "parameters": count,
        "photos_per_second": len(train) * len(epochs) / seconds,
    }
    return Tuned(trainable, start, end, stage, {stage: result}, _stage_history(stage, epochs))


def _part_text(unfreeze: int | str) -> str:
    if isinstance(unfreeze, int):
        return f"the last {'block' if unfreeze == 1 else f'{unfreeze} blocks'} and the head"
    named = {"all": "the whole network", "head": "the head convolution and the classifier"}
    return named.get(unfreeze, f"{unfreeze} and what follows")


def keep_last(tuned: Tuned, data: TrainingData, console: Console) -> dict[str, Any]:
    """Keep what training ended with: the last epoch's weights, or the best epoch's, as the recipe chose."""
    accuracy = tuned.stages[tuned.stage]["validation"]["accuracy"]
    photos = counted(len(data.labels["validation"]), "photo")
    console.say(f"Kept        {tuned.stage}: validation accuracy {100 * accuracy:.1f}%, on {photos}")
    return {"stage": tuned.stage, "share": 1.0, "validation_accuracy": accuracy}


def keep_best(tuned: Tuned, first_stage: str, data: TrainingData, console: Console) -> dict[str, Any]:
    """Keep the best on validation of the head alone, the fine-tuned weights and what lies between them.

    The most accurate wins, among equals the one with the least log loss.
    """
    names = {0.0: first_stage, 1.0: "fine-tuning"}
    rows, labels = data.activations("validation"), data.labels["validation"]
    measured = {}
    for share in (0.0, *INTERPOLATION_SHARES, 1.0):
        load_state(tuned.suffix, interpolated(tuned.start, tuned.end, share))
        loss, accuracy = loss_and_accuracy(suffix_logits(tuned.suffix, rows), labels)
        measured[share] = (accuracy, -loss)
    share = max(measured, key=lambda candidate: measured[candidate])
    load_state(tuned.suffix, interpolated(tuned.start, tuned.end, share))
    gain = 100 * (measured[share][0] - measured[0.0][0])
    stage = names.get(share, "interpolation")
    which = f"{stage} ({share:.0%} of the way)" if stage == "interpolation" else stage
    console.say(
        f"Kept        {which}: validation accuracy {100 * measured[share][0]:.1f}%, "
        f"{gain:+.1f} points over the {first_stage}, on {counted(len(labels), 'photo')}"
    )
    return {"stage": stage, "share": share, "points_over_probe": gain, "validation_accuracy": measured[share][0]}
