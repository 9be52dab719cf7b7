"""What to do next: plain sentences drawn from a run's numbers, each only where the numbers say so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from headstart.errors import counted, listed
from headstart.evaluation.second_opinion import likely_right
from headstart.photos.names import readable_names
from headstart.report.figure import shortened
from headstart.report.selection import ConfusedPair, confused_pairs
from headstart.report.tables import RunTables

Json = dict[str, Any]

# The accuracy counts as known when its interval reaches no further than this to either side.
_HALF_INTERVAL = 0.03
# A class counts as weak below the mean of all by this much, a pair as confused from this share of the class's photos.
_WEAK, _CONFUSED, _CONFUSED_PHOTOS = 0.1, 0.1, 3
# With fewer test photos, a class's F1 is any number.
_PHOTOS_TO_JUDGE = 5
# Less than this share of the median number of training photos is few.
_SCARCE = 0.8
_WELL_CALIBRATED, _PHOTOS_FOR_CALIBRATION = 0.05, 100
_GOOD_AUROC = 0.8
_NAMED, _LONGEST_NAME = 3, 50


def next_steps(metrics: Json, tables: RunTables, recipe: Json) -> list[str]:
    """Say what is worth doing next, what is worth most first; nothing where nothing stands out.

    Args:
        metrics: of `metrics.json`.
        tables: of the run.
        recipe: of `recipe.toml`.
    """
    labels = [row["class"] for row in metrics["test"]["per_class"]]
    names = {label: shortened(name, _LONGEST_NAME) for label, name in zip(labels, readable_names(labels), strict=True)}
    return [
        *_against_the_majority(metrics, names),
        *_problems(metrics, tables),
        *_label_suspects(metrics, tables),
        *_training_time(metrics, tables, recipe),
        *_weak_classes(metrics, tables, names),
        *_pairs(tables, names),
        *_slices(metrics),
        *_test_size(metrics),
        *_calibration(metrics),
        *_rejection(metrics),
    ]


def _against_the_majority(metrics: Json, names: dict[str, str]) -> Iterator[str]:
    majority = metrics.get("majority")
    if majority and metrics["test"]["accuracy_interval"][0] <= majority["accuracy"]:
        name = names.get(majority["class"], majority["class"])
        yield (
            f"It may be no better than always answering {name}, which is right for {majority['accuracy']:.0%} of the "
            "test photos: check that the labels are right and that the photos show what they say."
        )


def _problems(metrics: Json, tables: RunTables) -> Iterator[str]:
    severities = tables.problems["severity"]
    counts = metrics.get("checked") or severities.value_counts().to_dict()
    severe, warnings = int(counts.get("severe", 0)), int(counts.get("warning", 0))
    if severe:
        kinds = tables.problems.loc[severities == "severe", "problem"].value_counts()
        which = listed([f"{kind} ({count})" for kind, count in kinds.items()], _NAMED)
        told = counted(severe, "severe problem") + (f": {which}" if which else "")
        yield f"Mend what is gravely wrong with the photos, {told}. Each has a suggestion in problems.csv."
    elif warnings:
        yield f"Look through {counted(warnings, 'warning')} about the photos; each has a suggestion in problems.csv."
    elif len(severities) and (severities == "").all():  # of a run before photos were checked
        yield f"Look through the {counted(len(severities), 'file')} that were left out, in problems.csv."


def _label_suspects(metrics: Json, tables: RunTables) -> Iterator[str]:
    issues = metrics.get("label_issues") or {}
    suspects = issues.get("suspects", len(tables.label_issues))
    if suspects:
        examined = f" of {issues['photos']:,}" if "photos" in issues else ""
        right = likely_right(issues.get("opinion"))
        fewer = f" About {right:,} of them {'is' if right == 1 else 'are'} likely right after all." if right else ""
        yield (
            f"Check the labels of {counted(suspects, 'photo')}{examined} that may be wrong: look at them, write the "
            "right class into the last column of label_issues.csv, and train again with --labels label_issues.csv."
            + fewer
        )


def _training_time(metrics: Json, tables: RunTables, recipe: Json) -> Iterator[str]:
    plan, budget = recipe.get("plan"), recipe.get("budget", "none")
    if not plan or budget == "none":
        return
    if not plan["steps"]:
        if recipe.get("unfreeze") != 0 and metrics["test"]["accuracy"] < 1:
            yield f"Give it more time: in {budget} there was no room for fine-tuning. Try three times as much."
        return
    stages = [rows for stage, rows in tables.history.groupby("stage", sort=False) if stage != "probe"]
    for step, rows in zip(plan["steps"], stages, strict=False):
        losses = rows["validation_loss"].to_numpy()
        cut_short = len(rows) < step["epochs"] and int(losses.argmin()) == len(rows) - 1
        if cut_short:
            yield (
                f"Give it more time: fine-tuning still improved when its time was over, after {len(rows)} of "
                f"{counted(step['epochs'], 'epoch')}. Try a budget above {budget}."
            )
            return


def _weak_classes(metrics: Json, tables: RunTables, names: dict[str, str]) -> Iterator[str]:
    rows = [row for row in metrics["test"]["per_class"] if row["photos"] >= _PHOTOS_TO_JUDGE]
    limit = metrics["test"]["macro_f1"] - _WEAK
    weak = sorted((row for row in rows if row["f1"] < limit), key=lambda row: (row["f1"], row["class"]))
    catalog = tables.catalog
    training = catalog.loc[catalog["split"] == "train", "label"].value_counts()
    median = float(training.median()) if len(training) else 0.0
    scarce = [row for row in weak if training.get(row["class"], 0) < _SCARCE * median]
    if scarce:
        photos = [counted(int(training.get(row["class"], 0)), "training photo") for row in scarce]
        told = [
            f"{names[row['class']]} ({count}, F1 {row['f1']:.2f})" for row, count in zip(scarce, photos, strict=True)
        ]
        yield f"Add photos of {listed(told, _NAMED)}: fewer than most classes have, and worse results."
    elif weak:
        told = [f"{names[row['class']]} (F1 {row['f1']:.2f})" for row in weak]
        yield (
            f"Look at the mistakes with {listed(told, _NAMED)}: worse than the rest though not for want of photos. "
            "The labels may be mixed up, or the photos too unlike each other."
        )


def _pairs(tables: RunTables, names: dict[str, str]) -> Iterator[str]:
    pairs = [
        pair
        for pair in confused_pairs(tables)
        if pair.count >= _CONFUSED_PHOTOS and pair.count >= _CONFUSED * pair.photos
    ]
    if pairs:
        yield (
            f"Tell apart {listed([_pair_text(pair, names) for pair in pairs], _NAMED)}: add photos that show the "
            "difference, or make one class of two if the difference does not matter to you."
        )


def _pair_text(pair: ConfusedPair, names: dict[str, str]) -> str:
    truth, found = names.get(pair.truth, pair.truth), names.get(pair.found, pair.found)
    return f"{truth} from {found} ({pair.count} of {pair.photos} taken for it)"


def _slices(metrics: Json) -> Iterator[str]:
    low = metrics["test"]["accuracy_interval"][0]
    worse = [row for row in metrics.get("slices") or [] if row["accuracy_interval"][1] < low]
    if worse:
        told = [f"{row['fact']}: {shortened(row['slice'], _LONGEST_NAME)} ({row['accuracy']:.0%})" for row in worse]
        yield f"Add training photos of the kind that it does worse on: {listed(told, _NAMED)}."


def _test_size(metrics: Json) -> Iterator[str]:
    test = metrics["test"]
    low, high = test["accuracy_interval"]
    half = (high - low) / 2
    if half > _HALF_INTERVAL:
        share = min(max(test["accuracy"], 0.05), 0.95)
        needed = math.ceil(share * (1 - share) * (1.96 / _HALF_INTERVAL) ** 2 / 100) * 100
        yield (
            f"Test on more photos: {test['photos']:,} tell the accuracy within {100 * half:.0f} points to either side "
            f"only; about {needed:,} would tell it within {100 * _HALF_INTERVAL:.0f}."
        )


def _calibration(metrics: Json) -> Iterator[str]:
    calibration = metrics.get("calibration")
    if calibration and metrics["test"]["photos"] >= _PHOTOS_FOR_CALIBRATION:
        error = calibration["test"]["after"]["ece"]
        if error > _WELL_CALIBRATED:
            yield (
                f"Do not take its probabilities at their word: they are {100 * error:.0f} points off on average. "
                "More validation photos would calibrate them better."
            )


def _rejection(metrics: Json) -> Iterator[str]:
    rejection = metrics.get("rejection")
    if not rejection:
        return
    if not rejection["reached"]:
        yield (
            f"Let a person look at what it answers: no threshold makes {rejection['min_accuracy']:.0%} of the accepted "
            "photos right."
        )
    outsiders = rejection.get("outsiders")
    if outsiders and outsiders["auroc"] < _GOOD_AUROC:
        yield (
            "Keep photos of other things away from it, or add a class of them: it accepts "
            f"{outsiders['accepted']:.0%} of photos that belong to no class."
        )
