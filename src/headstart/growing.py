"""`headstart add`: more photos, or more classes, for a classifier that is trained already.

The photos of the run keep their splits, new ones are dealt out among themselves, and what was computed for the old ones
is in the store: only new photos are embedded, and a probe is fitted on all. A fine-tuned network is taken as it is, as
the frozen one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headstart.atomic import write_table
from headstart.cache import cache_folder
from headstart.console import Console
from headstart.errors import HeadstartError, counted, listed
from headstart.evaluation.metrics import compared, wilson_interval
from headstart.network.weights import IMAGENET
from headstart.photos.catalog import Catalog
from headstart.photos.datasets import absolute_source, read_photos
from headstart.photos.split import split_photos
from headstart.recipe import Plan, Recipe
from headstart.report.page import write_report
from headstart.run import Run, train
from headstart.run_folder import RunFolder, finished_run, photos_of_run

_COLUMNS = ["path", "label", "split", "digest"]
# Fewer new photos of a known class all go to training: there is nothing to measure on them.
_DEALT_FROM = 3


def add(
    run: str | Path,
    photos: str | Path,
    output: str | Path | None = None,
    *,
    cache: str | Path | None = None,
    quiet: bool = False,
    console: Console | None = None,
) -> Run:
    """Add photos to what a run was trained on, and fit its classifier again: a new run folder.

    Args:
        run: the folder of a finished run, which stays as it is.
        photos: what `train` takes; one class is enough. Photos that the run has seen are passed over.
        output: the new run folder; the run's own name with the next number unless told.
        cache: the cache folder; see `headstart.cache.cache_folder`.
        quiet: whether to print nothing but warnings.
        console: where to print; standard output unless told.

    Raises:
        HeadstartError: when the run is not finished, its photos are gone, or there is nothing new.
    """
    console, store = console or Console(quiet), cache_folder(cache)
    before = finished_run(Path(run))
    target = Path(output) if output is not None else _next_folder(Path(run))
    old = _old_photos(before, store, console)
    fresh = read_photos(photos, store, console, least_classes=1)
    table = pd.concat([old, _new_photos(fresh, old, before, console)], ignore_index=True)
    if target.exists() and any(target.iterdir()) and not _interrupted(target):
        raise HeadstartError(f"-o {target}: holds files already; expected a new folder.", "Choose another with -o.")
    target.mkdir(parents=True, exist_ok=True)
    listing = target / RunFolder.LISTING
    places = [os.path.relpath(path, target.resolve()) for path in table["path"]]
    write_table(listing, table.assign(path=places)[["path", "label", "split"]])
    try:
        grown = train(
            recipe=_recipe(before, listing), output=target, cache=cache, console=console, known=before.read_facts()
        )
    except BaseException:
        if not RunFolder(target).recipe.exists():
            listing.unlink(missing_ok=True)
            target.rmdir()
        raise
    return _compared(before, grown, absolute_source(photos), len(table) - len(old), console)


def _next_folder(run: Path) -> Path:
    """Return the run's path, as it was given, with the next number that is free."""
    run = run if run.name not in ("", "..") else run.resolve()
    base, number = re.fullmatch(r"(.*?)(?:-(\d+))?", run.name, re.DOTALL).groups()  # type: ignore[union-attr]
    following = int(number or 1) + 1
    while (place := run.with_name(f"{base}-{following}")).exists() and not _interrupted(place):
        following += 1
    return place


def _interrupted(target: Path) -> bool:
    """Say whether a folder holds a run that was to grow and has not been compared with the old one yet."""
    folder = RunFolder(target)
    if not (target / RunFolder.LISTING).exists():
        return False
    return not folder.metrics.exists() or "grown" not in folder.read_metrics()


def _old_photos(before: RunFolder, store: Path, console: Console) -> pd.DataFrame:
    """Return the run's photos with absolute paths, as they were labelled and split."""
    table = photos_of_run(before, store, console)
    gone = [path for path in table["path"] if not Path(path).is_file()]
    if gone:
        raise HeadstartError(
            f"{before.path}: {counted(len(gone), 'photo')} of the run not found: {listed(gone)}.",
            "Photos must stay where they were when it was trained.",
        )
    return table[_COLUMNS]


def _new_photos(fresh: Catalog, old: pd.DataFrame, before: RunFolder, console: Console) -> pd.DataFrame:
    """Return the new photos with absolute paths and a split each."""
    known = fresh.photos["digest"].isin(set(old["digest"]))
    new = fresh.photos[~known].drop_duplicates("digest")
    if new.empty:
        raise HeadstartError(
            f"{fresh.root}: all of its {counted(len(known), 'photo')} are in the run already.", "Give new photos."
        )
    passed = f", {int(known.sum()):,} are in the run already" if known.any() else ""
    classes = sorted(set(new["label"]) - set(old["label"]))
    console.say(
        f"New         {counted(len(new), 'photo')}{passed}; new classes: {listed(classes) if classes else 'none'}"
    )
    few = (new.groupby("label")["path"].transform("size") < _DEALT_FROM) & ~new["label"].isin(classes)
    new.loc[few & (new["split"] == ""), "split"] = "train"
    dealt = new["split"] == ""
    if dealt.any():
        recipe = Recipe.read(before.recipe)
        split = split_photos(new[dealt], recipe.seed, recipe.validation_fraction, recipe.test_fraction)
        new = pd.concat([new[~dealt], split])
    return new.assign(path=[str(fresh.root / path) for path in new["path"]])[_COLUMNS]


def _recipe(before: RunFolder, listing: Path) -> Recipe:
    """Return the recipe of the grown run: the network as the old run left it, frozen, with a probe."""
    recipe, metrics = Recipe.read(before.recipe), before.read_metrics()
    plan, tuned = recipe.plan, metrics["kept"]["stage"] not in ("probe", "example head")
    if plan is None:
        raise HeadstartError(f"{before.path}: has no plan; it is of an older version.", "Train it again.")
    size, views = metrics["kept"].get("image_size", plan.image_size), recipe.probe_views or plan.probe_views
    weights = str((before.classifier / "weights.safetensors").resolve()) if tuned else recipe.weights
    kept = recipe.model_dump(
        include={
            "backbone",
            "resize_policy",
            "seed",
            "validation_fraction",
            "test_fraction",
            "engine",
            "augmentation",
            "class_weights",
            "min_accuracy",
            "check",
        }
    )
    return Recipe.make(
        **kept,
        photos=str(listing.resolve()),
        weights=weights or IMAGENET,
        image_size=size,
        unfreeze=0,
        budget="none",
        plan=Plan(image_size=size, probe_views=views, steps=(), seconds=0.0),
    )


def _compared(before: RunFolder, grown: Run, photos: str, added: int, console: Console) -> Run:
    """Say what became of the accuracy on the old classes' test photos, and keep it with the metrics."""
    old, new = before.read_predictions(), RunFolder(grown.folder).read_predictions()
    digests, grown_digests = (
        dict(zip(table["path"], table["digest"], strict=True))
        for table in (before.read_catalog(), RunFolder(grown.folder).read_catalog())
    )
    merged = old.assign(digest=old["path"].map(digests)).merge(
        new.assign(digest=new["path"].map(grown_digests)), on="digest", suffixes=("_before", "_after")
    )
    first, second = (merged[f"correct_{when}"].to_numpy(bool) for when in ("before", "after"))
    comparison = compared("the classifier before", first, "the classifier now", second)
    told: dict[str, Any] = {
        "from": str(before.path.resolve().name),
        "photos": photos,
        "added": added,
        "old_test_photos": len(merged),
        "before": _accuracy(first),
        "after": _accuracy(second),
        **{name: comparison[name] for name in ("only_first", "only_second", "p_value", "told")},
    }
    rest = new[~new["path"].map(grown_digests).isin(set(merged["digest"]))]
    on_new = ""
    if len(rest):
        told["new_test_photos"], told["new"] = len(rest), _accuracy(rest["correct"].to_numpy(bool))
        on_new = f"; {100 * told['new']['accuracy']:.1f}% of {counted(len(rest), 'new test photo')}"
    console.say(
        f"Grown       {100 * told['before']['accuracy']:.1f}% before, {100 * told['after']['accuracy']:.1f}% now "
        f"of the {len(merged):,} old test photos{on_new}"
    )
    grown.metrics["grown"] = told
    folder = RunFolder(grown.folder)
    write_report(folder, grown.metrics)
    folder.write_metrics(grown.metrics)
    return grown


def _accuracy(right: Any) -> dict[str, Any]:
    correct, total = int(np.sum(right)), len(right)
    return {"accuracy": correct / max(1, total), "accuracy_interval": list(wilson_interval(correct, total))}
