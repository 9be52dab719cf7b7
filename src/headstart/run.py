"""The main job, from photos to a classifier. Read `train` from the top: it is the whole story."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from headstart import __version__
from headstart.cache import cache_folder
from headstart.classifier import Classifier, load, versions
from headstart.console import Console
from headstart.errors import HeadstartError, counted, listed
from headstart.evaluation.metrics import accuracy_text, measure, prediction_table, softmax, wilson_interval
from headstart.network.backbones import Backbone, backbone_named, build
from headstart.network.cut import boundary_before_last_blocks, last_boundary, set_trainable, suffix
from headstart.network.weights import load_pretrained
from headstart.photos.catalog import Catalog, read_catalog
from headstart.photos.datasets import DIGITS, digits_folder
from headstart.photos.split import SPLITS, leaked_into_training, split_photos
from headstart.recipe import Recipe
from headstart.run_folder import RunFolder, open_run_folder
from headstart.training.embedding import Embedder, Photo
from headstart.training.engines import choose_engine
from headstart.training.example_head import fit_example_head
from headstart.training.finetuning import (
    Epoch,
    FineTuning,
    State,
    ViewRows,
    fine_tune,
    interpolated,
    load_state,
    suffix_logits,
    trained_state,
)
from headstart.training.probe import Floats, Labels, LinearHead, class_weights, fit_probe, loss_and_accuracy

# The largest class may have this many times the photos of the smallest before classes are weighted.
BALANCED_UP_TO = 3.0
INTERPOLATION_SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what it measured (see `metrics.json`)."""

    folder: Path
    metrics: dict[str, Any]

    @cached_property
    def classifier(self) -> Classifier:
        """The trained classifier, loaded on first use."""
        return load(self.folder / "classifier")

    @property
    def history(self) -> pd.DataFrame:
        """Each epoch of each stage."""
        return pd.read_csv(self.folder / "history.csv")


def train(
    photos: str | Path | None = None,
    output: str | Path = "headstart-run",
    *,
    recipe: Recipe | str | Path | None = None,
    cache: str | Path | None = None,
    quiet: bool = False,
    console: Console | None = None,
    **choices: Any,
) -> Run:
    """Train a classifier on a folder of photos.

    Args:
        photos: a folder with a folder per class, a CSV, TSV or Parquet file with the columns path and label,
            or `digits`. May be left out with a recipe that names them.
        output: the run folder; a run that was interrupted there is resumed.
        recipe: a recipe, or the path of a `recipe.toml`, to start from.
        cache: the cache folder; see `headstart.cache.cache_folder`.
        quiet: whether to print nothing but warnings.
        console: where to print; standard output unless told.
        choices: fields of `Recipe`, which override the recipe's.

    Raises:
        HeadstartError: for everything that the user can mend.
    """
    recipe, console = _recipe(photos, recipe, choices), console or Console(quiet)
    store, started = cache_folder(cache), time.perf_counter()
    with open_run_folder(Path(output), recipe) as folder:
        catalog = _read_photos(recipe, store)
        if folder.finished(catalog):
            console.say(f"{folder.path} is finished already; this is what it holds.")
            return _told(Run(folder.path, folder.read_metrics()), console)
        digest = catalog.digest
        _tell_photos(catalog, console)

        backbone = backbone_named(recipe.backbone)
        network = _pretrained(recipe, backbone, len(catalog.class_names))
        boundary = boundary_before_last_blocks(network, recipe.unfreeze) if recipe.unfreeze else last_boundary(network)
        embedder = _embedder(recipe, backbone, network, boundary, catalog.root, store, console)

        catalog, seconds = _embed_photos(catalog, embedder, console)
        catalog = _split(catalog, recipe, console)
        folder.begin(recipe, catalog)
        seconds += _embed_views(catalog, embedder, recipe, console)
        data = _Data(catalog, embedder, boundary, recipe.num_views)
        weights = _weights(data, recipe, console)

        head, history, stages = _fit_head(data, recipe, weights, console)
        _set_classifier(network, head)
        if recipe.unfreeze:
            tuned = _fine_tune(network, boundary, data, recipe, weights, folder, console)
            history, stages = [*history, *tuned.history], stages | tuned.stages
            kept = _keep_best(tuned, next(iter(stages)), data, console)
        else:
            kept = {"stage": next(iter(stages)), "share": 0.0, "points_over_probe": 0.0}
        folder.write_table(folder.history, _history_table(history))

        logits = suffix(network, boundary).eval()
        metrics = _evaluate(logits, data, folder)
        metrics |= {
            "stages": stages,
            "kept": kept,
            "seconds": {"embedding": seconds, "total": time.perf_counter() - started},
            "catalog_digest": digest,
            "versions": versions(),
        }
        _save(folder, network, backbone, catalog, recipe, metrics)
        return _told(Run(folder.path, metrics), console)


def _recipe(photos: str | Path | None, recipe: Recipe | str | Path | None, choices: dict[str, Any]) -> Recipe:
    if photos is not None:
        # Absolute, so that the recipe can be run again from anywhere.
        choices = {
            **choices,
            "photos": DIGITS if str(photos) == DIGITS else str(Path(photos).expanduser().resolve()),
        }
    if isinstance(recipe, Recipe):
        return Recipe.make(**{**recipe.model_dump(), **choices})
    if recipe is not None:
        return Recipe.read(recipe, **choices)
    if photos is None:
        raise HeadstartError("no photos given; expected a folder, a table or `digits`.", "headstart train PHOTOS")
    return Recipe.make(**choices)


def _read_photos(recipe: Recipe, store: Path) -> Catalog:
    return read_catalog(digits_folder(store) if recipe.photos == DIGITS else recipe.photos)


def _tell_photos(catalog: Catalog, console: Console) -> None:
    counts = catalog.photos["label"].value_counts()
    classes = counted(len(catalog.class_names), "class")
    console.say(
        f"Photos      {counted(len(catalog.photos), 'photo')} in {classes}, "
        f"{counts.min():,} to {counts.max():,} a class ({catalog.root})"
    )
    for reason, count in sorted(catalog.ignored.items()):
        console.say(f"            ignored {count:,} {reason}")


def _pretrained(recipe: Recipe, backbone: Backbone, num_classes: int) -> nn.Module:
    network = build(backbone, num_classes, recipe.drop_path_rate)
    load_pretrained(network, backbone)
    return network


def _embedder(
    recipe: Recipe,
    backbone: Backbone,
    network: nn.Module,
    boundary: int,
    root: Path,
    store: Path,
    console: Console,
) -> Embedder:
    preprocessing = backbone.preprocessing(recipe.resize_policy, recipe.image_size)
    choice = choose_engine(recipe.engine)
    console.say(
        f"Network     {backbone.name}, ImageNet weights, {preprocessing.image_size} pixels, "
        f"resize policy {recipe.resize_policy}"
    )
    console.say(f"Engine      {choice}")
    boundaries = (boundary, last_boundary(network)) if recipe.unfreeze else (boundary,)
    identity = {"backbone": backbone.name, "weights": backbone.sha256}
    return Embedder(root, network, identity, boundaries, preprocessing, recipe.augmentation, recipe.seed, choice, store)


def _photos(table: pd.DataFrame) -> list[Photo]:
    return [Photo(path, digest) for path, digest in zip(table["path"], table["digest"], strict=True)]


def _embed_photos(catalog: Catalog, embedder: Embedder, console: Console) -> tuple[Catalog, float]:
    """Embed every photo in its evaluation view, and leave out those that cannot be read."""
    started = time.perf_counter()
    problems, computed = embedder.embed(_photos(catalog.photos), range(1), console, "photos")
    seconds = time.perf_counter() - started
    _tell_speed("Embedding", "photo", len(catalog.photos) - len(problems), computed, seconds, console)
    readable = catalog.without(problems)
    if len(readable.problems):
        names = listed([f"{row.path} ({row.detail})" for row in readable.problems.itertuples()], 3)
        console.warn(f"{counted(len(readable.problems), 'file')} left out, see problems.csv: {names}")
    return readable, seconds


def _tell_speed(what: str, noun: str, wanted: int, computed: int, seconds: float, console: Console) -> None:
    stored = f", {wanted - computed:,} were in the store" if computed < wanted else ""
    speed = f" in {seconds:.1f} s ({computed / seconds:.0f} photos/s)" if computed else ""
    console.say(f"{what:<11} {counted(computed, noun)}{speed}{stored}")


def _split(catalog: Catalog, recipe: Recipe, console: Console) -> Catalog:
    photos = split_photos(catalog.photos, recipe.seed, recipe.validation_fraction, recipe.test_fraction)
    leaked = leaked_into_training(photos)
    if leaked.any():
        console.warn(
            f"{counted(int(leaked.sum()), 'photo')} left out of training: the same bytes as a test or validation photo"
        )
    rows = pd.DataFrame({"path": photos.loc[leaked, "path"]})
    rows["problem"], rows["detail"] = "leak", "the same bytes as a test or validation photo; not trained on"
    catalog = Catalog(catalog.root, photos, catalog.class_names, catalog.problems, catalog.ignored).without(rows)
    untrained = set(catalog.class_names) - set(catalog.photos.loc[catalog.photos["split"] == "train", "label"])
    if untrained:
        raise HeadstartError(
            f"no training photos are left for {listed(sorted(untrained))}: all could not be read or are test photos.",
            "Add training photos for these classes, or take them out.",
        )
    counts = catalog.photos["split"].value_counts()
    how = "as given, the rest" if (catalog.photos["split"] != "").all() and len(set(counts.index)) < 3 else ""
    text = ", ".join(f"{counts.get(name, 0):,} {name}" for name in SPLITS)
    console.say(f"Split       {text} ({how or 'stratified'}, seed {recipe.seed})")
    return catalog


def _embed_views(catalog: Catalog, embedder: Embedder, recipe: Recipe, console: Console) -> float:
    """Embed the augmented views of the training photos."""
    if recipe.num_views == 1:
        return 0.0
    started = time.perf_counter()
    photos = _photos(catalog.photos[catalog.photos["split"] == "train"])
    views = range(1, recipe.num_views)
    _, computed = embedder.embed(photos, views, console, "views")
    seconds = time.perf_counter() - started
    _tell_speed("", "augmented view", len({photo.digest for photo in photos}) * len(views), computed, seconds, console)
    return seconds


class _Data:
    """The photos of each split with their labels as indices, and what the store holds of them."""

    def __init__(self, catalog: Catalog, embedder: Embedder, boundary: int, num_views: int) -> None:
        self.class_names = catalog.class_names
        self.num_views = num_views
        self._embedder = embedder
        self._boundary = boundary
        # What a checkpoint belongs to: these photos in this split.
        self.digest = catalog.digest[:16]
        index = {name: number for number, name in enumerate(catalog.class_names)}
        self.photos: dict[str, list[Photo]] = {}
        self.labels: dict[str, Labels] = {}
        for split in SPLITS:
            table = catalog.photos[catalog.photos["split"] == split]
            self.photos[split] = _photos(table)
            self.labels[split] = np.array([index[name] for name in table["label"]], np.int64)

    def features(self, split: str, view: int = 0) -> Any:
        """Return the (n, num_features) pooled features of a split."""
        return self._embedder.rows(self.photos[split], view, self._embedder.features_boundary)

    def activations(self, split: str, view: int = 0) -> Any:
        """Return the activations of a split at the boundary."""
        return self._embedder.rows(self.photos[split], view, self._boundary)

    def views(self, kind: Any) -> ViewRows:
        """Return all views of the training photos, of `features` or `activations`."""
        return ViewRows([kind("train", view) for view in range(self.num_views)])


def _weights(data: _Data, recipe: Recipe, console: Console) -> Floats:
    """Choose a weight per class for the loss."""
    labels, num_classes = data.labels["train"], len(data.class_names)
    counts = np.bincount(labels, minlength=num_classes)
    unbalanced = counts.max() > BALANCED_UP_TO * counts.min()
    if recipe.class_weights == "balanced" or (recipe.class_weights == "auto" and unbalanced):
        why = f"training classes have {counts.min():,} to {counts.max():,} photos" if unbalanced else "asked for"
        console.say(f"Weights     rare classes weigh more in the loss ({why})")
        return class_weights(labels, num_classes)
    return np.ones(num_classes, np.float32)


def _fit_head(
    data: _Data, recipe: Recipe, weights: Floats, console: Console
) -> tuple[LinearHead, list[dict[str, Any]], dict[str, Any]]:
    """Fit a linear head on the stored features: the probe, or the Keras example's head."""
    started = time.perf_counter()
    labels, validation = data.labels["train"], (data.features("validation"), data.labels["validation"])
    if recipe.head == "example":
        num_classes = len(data.class_names)
        head, epochs = fit_example_head(data.views(data.features), labels, *validation, num_classes, recipe.seed)
        stage, history = "example head", _stage_history("example head", epochs)
        detail = "batch normalisation, dropout 0.2, dense; Adam"
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


def _history_table(history: list[dict[str, Any]]) -> pd.DataFrame:
    """Make the table of every epoch of every stage; for the probe, an epoch is one strength of regularisation."""
    columns = ["stage", *(field.name for field in fields(Epoch)), "regularisation"]
    return pd.DataFrame(history).reindex(columns=columns)


def _set_classifier(network: nn.Module, head: LinearHead) -> None:
    classifier = network.get_submodule("classifier")
    with torch.no_grad():
        classifier.get_parameter("weight").copy_(torch.from_numpy(head.weight))
        classifier.get_parameter("bias").copy_(torch.from_numpy(head.bias))


@dataclass(frozen=True)
class _Tuned:
    """A fine-tuned suffix: its states before and after, what it measured, and its history."""

    suffix: nn.Module
    start: State
    end: State
    stages: dict[str, Any]
    history: list[dict[str, Any]]


def _fine_tune(
    network: nn.Module,
    boundary: int,
    data: _Data,
    recipe: Recipe,
    weights: Floats,
    folder: RunFolder,
    console: Console,
) -> _Tuned:
    """Fine-tune the suffix from the probe, on stored activations."""
    trainable = suffix(network, boundary, recipe.dropout_rate)
    start = trained_state(trainable)
    count = sum(parameter.numel() for parameter in set_trainable(trainable))
    total = sum(parameter.numel() for parameter in network.parameters())
    blocks = counted(recipe.unfreeze, "block")
    console.say(
        f"Fine-tuning the last {blocks} and the head: {count:,} of {total:,} parameters, from stored activations"
    )
    validation, labels = data.activations("validation"), data.labels["validation"]

    def tell(epoch: Epoch) -> None:
        console.say(
            f"            epoch {epoch.epoch:>2}: training loss {epoch.train_loss:.3f}, validation loss "
            f"{epoch.validation_loss:.3f}, accuracy {100 * epoch.validation_accuracy:.1f}%, {epoch.seconds:.1f} s"
        )

    settings = FineTuning(**{field.name: getattr(recipe, field.name) for field in fields(FineTuning)})
    end, epochs = fine_tune(
        trainable,
        data.views(data.activations),
        data.labels["train"],
        validation,
        labels,
        weights,
        settings,
        recipe.seed,
        folder.checkpoints / f"{data.digest}.safetensors",
        tell,
    )
    load_state(trainable, end)
    result = _stage(suffix_logits(trainable, validation), labels, sum(epoch.seconds for epoch in epochs))
    history = _stage_history("fine-tuning", epochs)
    return _Tuned(trainable, start, end, {"fine-tuning": result}, history)


def _keep_best(tuned: _Tuned, first_stage: str, data: _Data, console: Console) -> dict[str, Any]:
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


def _evaluate(logits: nn.Module, data: _Data, folder: RunFolder) -> dict[str, Any]:
    """Measure the final weights on validation photos and, once, on test photos."""
    metrics = {}
    for split in ("validation", "test"):
        probabilities = softmax(suffix_logits(logits, data.activations(split)))
        metrics[split] = measure(data.labels[split], probabilities, data.class_names)
    paths = [photo.name for photo in data.photos["test"]]
    folder.write_table(
        folder.predictions, prediction_table(paths, data.labels["test"], probabilities, data.class_names)
    )
    return metrics


def _save(
    folder: RunFolder,
    network: nn.Module,
    backbone: Backbone,
    catalog: Catalog,
    recipe: Recipe,
    metrics: dict[str, Any],
) -> None:
    """Write the classifier, the pictures and the report, and last the metrics."""
    from headstart.report.page import write_report
    from headstart.report.plots import plot_confusion, plot_history

    brief = ("photos", "accuracy", "accuracy_interval", "macro_f1", "log_loss")
    training = {
        "recipe": recipe.model_dump(mode="json", exclude={"photos"}, exclude_none=True),
        "kept": metrics["kept"],
        **{split: {name: metrics[split][name] for name in brief} for split in ("validation", "test")},
        "training_photos": int((catalog.photos["split"] == "train").sum()),
    }
    preprocessing = backbone.preprocessing(recipe.resize_policy, recipe.image_size)
    Classifier(network, catalog.class_names, preprocessing, backbone.name, training, recipe.engine).save(
        folder.classifier
    )
    plot_history(pd.read_csv(folder.history), folder.curves)
    plot_confusion(metrics["test"]["confusion_matrix"], catalog.class_names, folder.confusion)
    write_report(folder, metrics)
    folder.write_metrics(metrics)


def _told(run: Run, console: Console) -> Run:
    metrics = run.metrics
    console.say(f"Validation  accuracy {accuracy_text(metrics['validation'])}")
    console.say(f"Test        accuracy {accuracy_text(metrics['test'])}, macro F1 {metrics['test']['macro_f1']:.3f}")
    console.say(f"Time        {metrics['seconds']['total']:.0f} s in all; headstart {__version__}")
    console.say(f"Report      {run.folder / 'report.html'}")
    console.say(f"Classifier  {run.folder / 'classifier'}")
    return run
