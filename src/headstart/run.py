"""The main job, from photos to a classifier. Read `train` from the top: it is the whole story."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from headstart import __version__
from headstart.advice import advice
from headstart.atomic import write_table
from headstart.cache import cache_folder
from headstart.classifier import Classifier, load, versions
from headstart.console import Console
from headstart.errors import HeadstartError, counted, listed
from headstart.evaluation.metrics import accuracy_text, measure, prediction_table, softmax
from headstart.network.backbones import backbone_named, build
from headstart.network.cut import boundary_of, last_boundary, suffix
from headstart.network.weights import IMAGENET, NONE, Weights, load_weights
from headstart.photos.catalog import Catalog
from headstart.photos.datasets import absolute_source, read_photos
from headstart.photos.split import SPLITS, leaked_into_training, split_photos
from headstart.photos.views import Preprocessing
from headstart.recipe import Recipe
from headstart.run_folder import RunFolder, open_run_folder
from headstart.training.embedding import Embedder
from headstart.training.engines import choose_engine
from headstart.training.finetuning import suffix_logits
from headstart.training.hardware import first_process_first, process_number, same_for_all
from headstart.training.stages import (
    TrainingData,
    choose_class_weights,
    fit_head,
    history_table,
    keep_best,
    keep_last,
    photos_of,
    set_classifier,
    tune_suffix,
)


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
            or the name of a dataset (see `read_photos`). May be left out with a recipe that names them.
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
    if process_number() > 0:
        console = Console(quiet=True)
    store, started = cache_folder(cache), time.perf_counter()
    with open_run_folder(Path(output), recipe) as folder:
        with first_process_first():
            catalog = read_photos(recipe.photos, store, console)
        if same_for_all(folder.finished(catalog)):
            console.say(f"{folder.path} is finished already; this is what it holds.")
            return _told(Run(Path(output), RunFolder(Path(output)).read_metrics()), console)
        digest = catalog.digest
        _tell_photos(catalog, console)

        backbone = backbone_named(recipe.backbone)
        torch.manual_seed(recipe.seed)  # of random weights
        network = build(backbone, len(catalog.class_names), recipe.drop_path_rate)
        weights = load_weights(network, backbone, recipe.weights)
        preprocessing = backbone.preprocessing(recipe.resize_policy, recipe.image_size, weights.normalisation)
        boundary = boundary_of(network, recipe.unfreeze)
        embedder = _embedder(recipe, network, weights, preprocessing, boundary, catalog.root, store, console)

        with first_process_first():
            catalog, seconds = _embed_photos(catalog, embedder, console)
        catalog = _split(catalog, recipe, console)
        for sentence in advice(recipe, catalog, preprocessing.image_size):
            console.say(f"Advice      {sentence}")
        folder.begin(recipe, catalog)
        with first_process_first():
            seconds += _embed_views(catalog, embedder, recipe, console)
        data = TrainingData(catalog, embedder, boundary, recipe.num_views)
        class_weights = choose_class_weights(data, recipe, console)

        history: list[dict[str, Any]] = []
        stages: dict[str, Any] = {}
        kept: dict[str, Any] = {}
        if not recipe.from_scratch:
            head, history, stages = fit_head(data, recipe, class_weights, console)
            set_classifier(network, head)
            kept = {"stage": next(iter(stages)), "share": 0.0, "points_over_probe": 0.0}
        if recipe.unfreeze:
            tuned = tune_suffix(
                network, boundary, preprocessing, data, recipe, class_weights, folder.checkpoints, console
            )
            history, stages = [*history, *tuned.history], stages | tuned.stages
            between = recipe.keep == "best" and not recipe.from_scratch
            kept = keep_best(tuned, kept["stage"], data, console) if between else keep_last(tuned, data, console)
        write_table(folder.history, history_table(history))

        logits = suffix(network, boundary, preprocessing).eval()
        metrics = _evaluate(logits, data, folder)
        metrics |= {
            "stages": stages,
            "kept": kept,
            "seconds": {"embedding": seconds, "total": time.perf_counter() - started},
            "catalog_digest": digest,
            "versions": versions(),
        }
        _save(folder, network, preprocessing, catalog, recipe, metrics)
        return _told(Run(folder.path, metrics), console)


def _recipe(photos: str | Path | None, recipe: Recipe | str | Path | None, choices: dict[str, Any]) -> Recipe:
    if photos is not None:
        # Absolute, so that the recipe can be run again from anywhere.
        choices = {**choices, "photos": absolute_source(photos)}
    if str(choices.get("weights") or IMAGENET) not in (IMAGENET, NONE):
        choices = {**choices, "weights": str(Path(choices["weights"]).expanduser().resolve())}
    if isinstance(recipe, Recipe):
        return Recipe.make(**{**recipe.model_dump(), **choices})
    if recipe is not None:
        return Recipe.read(recipe, **choices)
    if photos is None:
        raise HeadstartError(
            "no photos given; expected a folder, a table or the name of a dataset.", "headstart train PHOTOS"
        )
    return Recipe.make(**choices)


def _tell_photos(catalog: Catalog, console: Console) -> None:
    counts = catalog.photos["label"].value_counts()
    classes = counted(len(catalog.class_names), "class")
    console.say(
        f"Photos      {counted(len(catalog.photos), 'photo')} in {classes}, "
        f"{counts.min():,} to {counts.max():,} a class ({catalog.root})"
    )
    for reason, count in sorted(catalog.ignored.items()):
        console.say(f"            ignored {reason}: {count:,}")


def _embedder(
    recipe: Recipe,
    network: nn.Module,
    weights: Weights,
    preprocessing: Preprocessing,
    boundary: int,
    root: Path,
    store: Path,
    console: Console,
) -> Embedder:
    choice = choose_engine(recipe.engine)
    console.say(
        f"Network     {recipe.backbone}, {weights.told}, {preprocessing.image_size} pixels, "
        f"resize policy {recipe.resize_policy}"
    )
    if not recipe.from_scratch:
        console.say(f"Engine      {choice}")
    # The head is fitted on the pooled features; random ones are worth nothing.
    boundaries = {boundary} if recipe.from_scratch else {boundary, last_boundary(network)}
    identity = {"backbone": recipe.backbone, "weights": weights.identity}
    return Embedder(
        root,
        network,
        identity,
        tuple(sorted(boundaries)),
        preprocessing,
        recipe.augmentation,
        recipe.seed,
        choice,
        store,
    )


def _embed_photos(catalog: Catalog, embedder: Embedder, console: Console) -> tuple[Catalog, float]:
    """Embed every photo in its evaluation view, and leave out those that cannot be read."""
    started = time.perf_counter()
    problems, computed = embedder.embed(photos_of(catalog.photos), range(1), console, "photos")
    seconds = time.perf_counter() - started
    what = "Embedding" if embedder.shelves else "Reading"
    _tell_speed(what, "photo", len(catalog.photos) - len(problems), computed, seconds, console)
    readable = catalog.without(problems)
    if len(readable.problems):
        names = listed([f"{row.path} ({row.detail})" for row in readable.problems.itertuples()], 3)
        console.warn(f"{counted(len(readable.problems), 'file')} left out, see problems.csv: {names}")
    return readable, seconds


def _tell_speed(what: str, noun: str, wanted: int, computed: int, seconds: float, console: Console) -> None:
    stored = f", {wanted - computed:,} were in the store or are copies" if computed < wanted else ""
    speed = f" in {seconds:.1f} s ({computed / seconds:.0f} photos/s)" if computed else ""
    console.say(f"{what:<11} {counted(computed, noun)}{speed}{stored}")


def _split(catalog: Catalog, recipe: Recipe, console: Console) -> Catalog:
    photos = split_photos(catalog.photos, recipe.seed, recipe.validation_fraction, recipe.test_fraction)
    # Where the user gave a test split but no validation split, training photos are dealt out to it.
    given = [name for name in SPLITS[1:] if (catalog.photos["split"] == name).any()]
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
    text = ", ".join(f"{counts.get(name, 0):,} {name}" for name in SPLITS)
    dealt = [name for name in SPLITS[1:] if name not in given]
    how = [f"{' and '.join(given)} as given"] if given else []
    how += [f"{' and '.join(dealt)} stratified, seed {recipe.seed}"] if dealt else []
    console.say(f"Split       {text} ({'; '.join(how)})")
    return catalog


def _embed_views(catalog: Catalog, embedder: Embedder, recipe: Recipe, console: Console) -> float:
    """Embed the augmented views of the training photos, where a stage trains from stored views."""
    whole_network_trains = embedder.boundaries[0] == 0 and recipe.head == "probe"
    if recipe.num_views == 1 or whole_network_trains or recipe.from_scratch:
        return 0.0
    started = time.perf_counter()
    photos = photos_of(catalog.photos[catalog.photos["split"] == "train"])
    views = range(1, recipe.num_views)
    _, computed = embedder.embed(photos, views, console, "views")
    seconds = time.perf_counter() - started
    _tell_speed("", "augmented view", len({photo.digest for photo in photos}) * len(views), computed, seconds, console)
    return seconds


def _evaluate(logits: nn.Module, data: TrainingData, folder: RunFolder) -> dict[str, Any]:
    """Measure the final weights on validation photos and, once, on test photos."""
    metrics = {}
    for split in ("validation", "test"):
        probabilities = softmax(suffix_logits(logits, data.activations(split)))
        metrics[split] = measure(data.labels[split], probabilities, data.class_names)
    paths = [photo.name for photo in data.photos["test"]]
    write_table(folder.predictions, prediction_table(paths, data.labels["test"], probabilities, data.class_names))
    return metrics


def _save(
    folder: RunFolder,
    network: nn.Module,
    preprocessing: Preprocessing,
    catalog: Catalog,
    recipe: Recipe,
    metrics: dict[str, Any],
) -> None:
    """Write the classifier, the pictures and the report, and last the metrics."""
    from headstart.report.page import write_report
    from headstart.report.plots import write_confusion_plot, write_history_plot

    brief = ("photos", "accuracy", "accuracy_interval", "macro_f1", "log_loss")
    # Where the photos and a file of weights lie is the user's own business: a classifier is passed on.
    choices = recipe.model_dump(mode="json", exclude={"photos"}, exclude_none=True)
    training = {
        "recipe": {**choices, "weights": Path(recipe.weights).name},
        "kept": metrics["kept"],
        **{split: {name: metrics[split][name] for name in brief} for split in ("validation", "test")},
        "training_photos": int((catalog.photos["split"] == "train").sum()),
    }
    Classifier(network, catalog.class_names, preprocessing, recipe.backbone, training, recipe.engine).save(
        folder.classifier
    )
    write_history_plot(pd.read_csv(folder.history), folder.curves)
    write_confusion_plot(metrics["test"]["confusion_matrix"], catalog.class_names, folder.confusion)
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
