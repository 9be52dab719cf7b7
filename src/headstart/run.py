"""The main job, from photos to a classifier. Read `train` from the top: it is the whole story."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from headstart import __version__
from headstart.advice import advice, notes
from headstart.atomic import write_table
from headstart.beforehand import asked_recipe, placed
from headstart.cache import cache_folder
from headstart.checking import NOT_CHECKED, check_photos, checks_in_time, suspect_labels
from headstart.classifier import Classifier, load, versions
from headstart.console import Console
from headstart.errors import HeadstartError, counted, listed
from headstart.evaluation.judging import judge, measure_test, settle, unlearnt
from headstart.evaluation.metrics import accuracy_text
from headstart.evaluation.outsiders import measure_outsiders
from headstart.evaluation.rejection import Rejection, accepted_text
from headstart.evaluation.slices import accuracy_by_slice
from headstart.machine import machine
from headstart.network.backbones import backbone_named, build
from headstart.network.weights import Weights, load_weights
from headstart.photos.catalog import Catalog, passed_over
from headstart.photos.corrections import corrected
from headstart.photos.datasets import read_photos
from headstart.photos.split import SPLITS, leaked_into_training, split_photos
from headstart.photos.views import Preprocessing
from headstart.profiling import profile_run, tell_profile
from headstart.recipe import Recipe
from headstart.run_folder import RunFolder, open_run_folder
from headstart.stopwatch import Stopwatch
from headstart.tracking import History
from headstart.training.data import LEARNING, TrainingData, photos_of
from headstart.training.embedding import Embedder
from headstart.training.engines import choose_engine
from headstart.training.hardware import first_process_first, process_number, same_for_all
from headstart.training.heads import set_head
from headstart.training.int8 import choose_int8_views
from headstart.training.keeping import Kept, keep
from headstart.training.plan import (
    EMBEDDING_SHARE,
    count_in_time,
    logits_per_second,
    plan_run,
    size_in_time,
    time_limit,
)
from headstart.training.refitting import refit
from headstart.training.stages import (
    choose_class_weights,
    embed_for_head,
    embed_step,
    fit_head,
    tell_speed,
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
    profile: bool = False,
    log: Sequence[str] = (),
    console: Console | None = None,
    known: pd.DataFrame | None = None,
    started: float | None = None,
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
        profile: whether to measure, at the end, how far each stage is from the least that it could take here.
        log: where else each epoch is logged as it comes: tensorboard, mlflow, or both.
        console: where to print; standard output unless told.
        known: `facts.csv` of an earlier run: photos in it are not looked at again.
        started: when the run began, by `time.perf_counter`, if before this call: its budget counts from then.
        choices: fields of `Recipe`, which override the recipe's.

    Raises:
        HeadstartError: for everything that the user can mend.
    """
    asked, console = asked_recipe(photos, recipe, choices), console or Console(quiet)
    recipe = placed(asked)
    if process_number() > 0:
        console = Console(quiet=True)
    store, watch = cache_folder(cache), Stopwatch(started)
    with open_run_folder(Path(output), recipe) as folder, History(log, console) as history:
        with first_process_first(), watch.timing("scanning"):
            catalog = _read(asked, store, console)
        if same_for_all(folder.finished(catalog)):
            console.say(f"{folder.path} is finished already; this is what it holds.")
            return _told(Run(Path(output), RunFolder(Path(output)).read_metrics()), recipe, profile, console)
        digest = catalog.digest
        _tell_photos(catalog, console)
        recipe = same_for_all(folder.resumed(recipe))

        backbone = backbone_named(recipe.backbone)
        torch.manual_seed(recipe.seed)  # of random weights
        network = build(backbone, len(catalog.class_names), recipe.drop_path_rate)
        weights = load_weights(network, backbone, recipe.weights)
        with watch.timing("planning"):
            preprocessing, part = _in_time(recipe, network, weights, catalog, store, console)
        catalog = catalog if part is None else catalog.part(part)
        embedder = _embedder(recipe, network, weights, preprocessing, catalog, store)
        _tell_network(recipe, weights, embedder, console)
        with watch.timing("embedding"), first_process_first():
            catalog = _embed_photos(catalog, embedder, recipe, console)
        with watch.timing("checking"):
            features = None if recipe.from_scratch else embedder
            checks = same_for_all(checks_in_time(recipe, catalog, console))
            found = check_photos(catalog, features, console, known) if checks else NOT_CHECKED
        catalog = _split(catalog, recipe, found.originals, console)
        for sentence in advice(recipe, catalog, preprocessing.image_size):
            console.say(f"Advice      {sentence}")
        data = TrainingData(catalog, embedder)
        class_weights = choose_class_weights(data, recipe, console)

        followed = recipe.plan is not None  # to the letter, however long it takes
        with watch.timing("planning"):
            int8 = same_for_all(choose_int8_views(data, network, recipe, class_weights, watch.elapsed, console))
            plan = recipe.plan or same_for_all(plan_run(recipe, network, data, checks, watch.elapsed, console))
        plan = plan.model_copy(update={"num_photos": part, "int8_views": int8})
        recipe = recipe.model_copy(update={"plan": plan})
        folder.begin(recipe, catalog, found)
        history.begin(folder, recipe)

        head, kept, stages = None, Kept.untrained(data), dict[str, Any]()
        if not recipe.from_scratch:
            with watch.timing("embedding"), first_process_first():
                embed_for_head(data, recipe, console)
            with watch.timing("probing"):
                head, kept, stages = fit_head(data, recipe, class_weights, history, console)
                set_head(network, head)
        for number, step in enumerate(plan.steps):
            seen = data.at(step.image_size).part(step.one_in)
            with watch.timing("embedding"), first_process_first():
                embed_step(seen, network, step, recipe, console)
            limit = None if followed else time_limit(plan, number, recipe, watch.elapsed)
            with watch.timing("fine-tuning"):
                tuned = tune_suffix(
                    network, seen, recipe, step, kept, limit, class_weights, folder.checkpoints, history, console
                )
                deeper = number + 1 < len(plan.steps)
                kept, hopeful = keep(tuned, kept, seen, recipe, class_weights, console, deeper)
            stages |= tuned.stages
            if not hopeful:
                break
        write_table(folder.history, history.table())
        refitted = recipe.refits_after(kept.step)

        with watch.timing("evaluation"):
            judgement = judge(network, kept, data, recipe.min_accuracy, console)
        if recipe.refits:
            with watch.timing("refitting"):
                head = refit(network, kept, data, recipe, stages, class_weights, folder.checkpoints, console)
        with watch.timing("evaluation"):
            rejection = settle(network, kept, data, judgement, refitted, console)
            measured, predictions = measure_test(network, kept, data, judgement, rejection, head, console)
        write_table(folder.predictions, predictions)
        metrics = measured | {
            "slices": accuracy_by_slice(predictions, found.facts, catalog.class_depth),
            "stages": stages,
            "kept": kept.told() | {"refitted": refitted},
            "checked": found.counts,
            "notes": list(notes(recipe, catalog)),
            "planned_seconds": plan.seconds,
            "catalog_digest": digest,
            "versions": versions(),
            "machine": machine(),
        }
        with watch.timing("writing"):
            seen = kept.seen_of(data)
            learnt = seen.photos[LEARNING if refitted else "train"]
            preprocessing = seen.embedder.preprocessing
            classifier = _classifier(network, preprocessing, catalog, rejection, recipe, metrics, len(learnt))
            classifier.save(folder.classifier)
        if checks and not recipe.from_scratch:
            with watch.timing("checking"):
                network_says = unlearnt(kept, judgement, predictions, catalog.class_names)
                metrics["label_issues"] = suspect_labels(folder, data, stages, class_weights, network_says, console)
        if asked.outsiders is not None:
            with watch.timing("evaluation"):
                outsiders = measure_outsiders(classifier, asked.outsiders, predictions, console)
            metrics["rejection"]["outsiders"] = outsiders
        with watch.timing("writing"):
            _report(folder, classifier, catalog.root, metrics, watch, console)
            history.finish(folder, metrics)
        if profile and process_number() == 0:
            profile_run(folder, catalog, data, network, kept, recipe, metrics, watch)
        return _told(Run(folder.path, metrics), recipe, profile, console)


def _read(asked: Recipe, store: Path, console: Console) -> Catalog:
    """Read the photos, with their labels corrected."""
    catalog = read_photos(asked.photos, store, console)
    if asked.labels is None:
        return catalog
    catalog, changed = corrected(catalog, asked.labels)
    console.say(f"Labels      {counted(changed, 'label')} corrected by {asked.labels}")
    return catalog


def _tell_photos(catalog: Catalog, console: Console) -> None:
    console.say(catalog.told())
    for told in passed_over(catalog.ignored):
        console.say(f"            ignored {told}")


def _in_time(
    recipe: Recipe, network: nn.Module, weights: Weights, catalog: Catalog, store: Path, console: Console
) -> tuple[Preprocessing, int | None]:
    """Choose how photos become pixels, and about how many are used: very many are made smaller, of too many a part.

    The number is None where all are used.
    """
    backbone, plan = backbone_named(recipe.backbone), recipe.plan
    usual = backbone.image_size if recipe.from_scratch else backbone.transfer_size
    size, count = (plan.image_size, plan.num_photos) if plan else (recipe.image_size, None)
    preprocessing = backbone.preprocessing(recipe.resize_policy, size or usual, weights.normalisation)
    # Slower than 50 photos/s is seldom; below that number there is nothing to find out.
    if size is None and not recipe.from_scratch and len(catalog.photos) > 50 * EMBEDDING_SHARE * recipe.budget_seconds:
        embedder = _embedder(recipe, network, weights, preprocessing, catalog, store)
        photos = photos_of(catalog.photos)
        rate = embedder.speed(photos)
        size = same_for_all(size_in_time(usual, len(catalog.photos), rate, recipe.budget_seconds))
        if size < usual:
            console.say(f"Image size  {size} pixels: at {usual}, {rate:.0f} photos/s would take too long")
            preprocessing = backbone.preprocessing(recipe.resize_policy, size, weights.normalisation)
            rate = embedder.at(size).speed(photos)
        classes = len(catalog.class_names)
        count = same_for_all(count_in_time(rate, logits_per_second(network), classes, recipe.budget_seconds))
    if count is None or count >= len(catalog.photos):
        return preprocessing, None
    console.say(
        f"            about {count:,} of the photos are used, an equal share of each class: all would take too "
        f"long for --budget {recipe.budget}"
    )
    return preprocessing, count


def _embedder(
    recipe: Recipe, network: nn.Module, weights: Weights, preprocessing: Preprocessing, catalog: Catalog, store: Path
) -> Embedder:
    identity = {"backbone": recipe.backbone, "weights": weights.identity}
    choice = choose_engine(recipe.engine)
    return Embedder(catalog.root, network, identity, preprocessing, recipe.augmentation, recipe.seed, choice, store)


def _tell_network(recipe: Recipe, weights: Weights, embedder: Embedder, console: Console) -> None:
    console.say(
        f"Network     {recipe.backbone}, {weights.told}, {embedder.preprocessing.image_size} pixels, "
        f"resize policy {recipe.resize_policy}"
    )
    if not recipe.from_scratch:
        console.say(f"Engine      {embedder.choice}")


def _embed_photos(catalog: Catalog, embedder: Embedder, recipe: Recipe, console: Console) -> Catalog:
    """Embed every photo in its evaluation view, and leave out those that cannot be read."""
    started = time.perf_counter()
    # Random features are worth nothing: from scratch, photos are only tried.
    boundary = 0 if recipe.from_scratch else embedder.features_boundary
    problems, computed = embedder.embed(photos_of(catalog.photos), range(1), (boundary,), console, "photos")
    what = "Embedding" if boundary else "Reading"
    tell_speed(what, "photo", len(catalog.photos) - len(problems), computed, time.perf_counter() - started, console)
    readable = catalog.without(problems)
    if len(readable.problems):
        names = listed([f"{row.path} ({row.detail})" for row in readable.problems.itertuples()], 3)
        console.warn(f"{counted(len(readable.problems), 'file')} left out, see problems.csv: {names}")
    return readable


def _split(catalog: Catalog, recipe: Recipe, originals: Mapping[str, str], console: Console) -> Catalog:
    fractions = recipe.validation_fraction, recipe.test_fraction
    photos = split_photos(catalog.photos, recipe.seed, *fractions, originals)
    # Where the user gave a test split but no validation split, training photos are dealt out to it.
    given = [name for name in SPLITS[1:] if (catalog.photos["split"] == name).any()]
    leaked = leaked_into_training(photos)
    if leaked.any():
        console.warn(
            f"{counted(int(leaked.sum()), 'photo')} left out of training: the same bytes as a test or validation photo"
        )
    rows = pd.DataFrame({"path": photos.loc[leaked, "path"]})
    rows["problem"], rows["detail"] = "leak", "the same bytes as a test or validation photo; not trained on"
    catalog = replace(catalog, photos=photos).without(rows)
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


def _classifier(
    network: nn.Module,
    preprocessing: Preprocessing,
    catalog: Catalog,
    rejection: Rejection,
    recipe: Recipe,
    metrics: dict[str, Any],
    training_photos: int,
) -> Classifier:
    brief = ("photos", "accuracy", "accuracy_interval", "macro_f1", "log_loss")
    # Where the photos and a file of weights lie is the user's own business: a classifier is passed on.
    private = {"photos", "labels", "outsiders", "plan"}
    choices = recipe.model_dump(mode="json", exclude=private, exclude_none=True)
    training = {
        "recipe": {**choices, "weights": Path(recipe.weights).name},
        "kept": metrics["kept"],
        **{split: {name: metrics[split][name] for name in brief} for split in ("validation", "test")},
        "training_photos": training_photos,
    }
    return Classifier(network, catalog.class_names, preprocessing, recipe.backbone, training, recipe.engine, rejection)


def _report(
    folder: RunFolder, classifier: Classifier, root: Path, metrics: dict[str, Any], watch: Stopwatch, console: Console
) -> None:
    """Write the pictures and the report, and last the metrics."""
    from headstart.report.page import write_report
    from headstart.report.plots import write_confusion_plot, write_history_plot
    from headstart.report.thumbnails import write_thumbnails

    write_thumbnails(folder, root, classifier.network, classifier.preprocessing, console)
    write_history_plot(pd.read_csv(folder.history), folder.curves)
    write_confusion_plot(metrics["test"]["confusion_matrix"], classifier.class_names, folder.confusion)
    metrics["seconds"] = {**watch.seconds, "total": watch.elapsed}
    write_report(folder, metrics)
    folder.write_metrics(metrics)


def _told(run: Run, recipe: Recipe, profile: bool, console: Console) -> Run:
    metrics = run.metrics
    console.say(f"Validation  accuracy {accuracy_text(metrics['validation'])}")
    console.say(f"Test        accuracy {accuracy_text(metrics['test'])}, macro F1 {metrics['test']['macro_f1']:.3f}")
    if "rejection" in metrics:
        console.say(f"            {_trust_text(metrics)}")
    console.say(f"Time        {_time_text(metrics, recipe)}; headstart {__version__}")
    console.say(f"Report      {run.folder / 'report.html'}")
    console.say(f"Classifier  {run.folder / 'classifier'}")
    if profile:
        tell_profile(metrics, console)
    return run


def _trust_text(metrics: dict[str, Any]) -> str:
    """Say what the test accuracy is to be compared with, and what is accepted."""
    accepted, majority = metrics["rejection"]["test"], metrics["majority"]
    always = f"always answering {majority['class']!r} would give {100 * majority['accuracy']:.1f}%"
    return f"{always}; accepted {accepted_text(accepted)}"


def _time_text(metrics: dict[str, Any], recipe: Recipe) -> str:
    """Say how long a run took, and how its forecast and its budget held."""
    taken, planned = metrics["seconds"]["total"], metrics["planned_seconds"]
    if not planned:
        return f"{taken:.0f} s in all"
    over = f"; more than the budget of {recipe.budget}" if taken > 1.15 * recipe.budget_seconds else ""
    return f"{taken:.0f} s in all, {planned:.0f} s were forecast ({100 * (taken / planned - 1):+.0f}%){over}"
