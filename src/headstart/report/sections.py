"""What each section of the report shows, made from a run's metrics, tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from headstart.errors import counted
from headstart.evaluation.second_opinion import opinion_text
from headstart.report.album import Album, Inlined
from headstart.report.figure import shortened
from headstart.report.inline_svg import inline_svg
from headstart.report.selection import ConfusedPair, Selection, ShownPhoto
from headstart.report.tables import RunTables

Json = dict[str, Any]

# Rows of a table in the page; its file has all.
MOST_CLASSES, MOST_PROBLEMS, MOST_SLICES = 500, 100, 60
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Card:
    """A photo and its picture, if there is one."""

    photo: ShownPhoto
    picture: Inlined | None


def cards(photos: Sequence[ShownPhoto], picture: Callable[[str], Inlined | None]) -> list[Card]:
    """Give each photo its picture."""
    return [Card(photo, picture(photo.path)) for photo in photos]


def headline(metrics: Json) -> str:
    """Say in plain words what the test accuracy means."""
    test = metrics["test"]
    low, high = test["accuracy_interval"]
    told = (
        f"Of 100 new photos like these it should classify about {100 * test['accuracy']:.0f} rightly; with 95% "
        f"confidence, between {100 * low:.0f} and {100 * high:.0f}."
    )
    majority = metrics.get("majority")
    if majority:
        told += f" Always giving the most frequent answer would be right for {100 * majority['accuracy']:.0f}."
    return told


def asked(recipe: Json, grown: Json | None = None) -> list[tuple[str, str]]:
    """List the choices of a recipe that matter most; of a grown run, first what it grew from and by."""
    if grown:
        # Its recipe holds what was made of these: a table of all photos, a network on disk, no budget.
        given = ("photos", "weights", "budget")
        from_old = [("earlier run", grown["from"]), ("new photos", grown.get("photos") or f"{grown['added']:,}")]
        return [*from_old, *asked({name: value for name, value in recipe.items() if name not in given})]
    terms = {
        "photos": "photos",
        "backbone": "network",
        "weights": "weights to start from",
        "budget": "budget",
        "resize_policy": "photos become squares by",
        "augmentation": "augmentation",
        "head": "head",
        "class_weights": "class weights",
        "seed": "seed",
    }
    rows = [(term, str(recipe[name])) for name, term in terms.items() if name in recipe]
    size = (recipe.get("plan") or recipe).get("image_size")
    rows += [("image size", f"{size} pixels")] if size else []
    if "validation_fraction" in recipe and "test_fraction" in recipe:
        rows.append(
            ("held back", f"{recipe['validation_fraction']:.0%} validation, {recipe['test_fraction']:.0%} test")
        )
    return rows


def planned(recipe: Json) -> list[str] | None:
    """Tell the steps of the plan; None where there is none."""
    from headstart.training.stages import part_text, photos_text

    plan = recipe.get("plan")
    if not plan:
        return None
    scratch = recipe.get("weights") == "none"
    steps = [] if scratch else [f"a head on {counted(plan['probe_views'], 'view')} of each photo, the network frozen"]
    for step in plan["steps"]:
        epochs, views = counted(step["epochs"], "epoch"), counted(step["num_views"], "view")
        part = part_text(step["unfreeze"], step.get("image_size"))
        views += photos_text(step.get("one_in", 1))
        steps.append(f"fine-tuning {part}: {epochs}, {views}, {step['seconds']:.0f} s of training forecast")
    return steps


def times(seconds: Json) -> list[tuple[str, float]]:
    """Return the seconds of each kind of work, and of what is none of them, which make the total."""
    rows = [(work, taken) for work, taken in seconds.items() if work != "total"]
    return [*rows, ("other", max(0.0, seconds["total"] - sum(taken for _, taken in rows)))]


def time_told(metrics: Json) -> str:
    """Say how long the run took, and how the forecast held."""
    taken, forecast = metrics["seconds"]["total"], metrics.get("planned_seconds")
    if not forecast:
        return f"{taken:.0f} s in all."
    return f"{taken:.0f} s in all; {forecast:.0f} s were forecast ({100 * (taken / forecast - 1):+.0f}%)."


def machine(metrics: Json) -> list[tuple[str, str]]:
    """Describe the machine, where it is known."""
    found = metrics.get("machine") or {}
    rows = [("processor", found.get("processor")), ("cores", found.get("cores")), ("memory", found.get("memory_gib"))]
    told = [(term, f"{value:.3g} GiB" if term == "memory" else str(value)) for term, value in rows if value]
    return [*told, ("accelerator", str(found.get("accelerator") or "none"))] if told else []


def class_counts(catalog: pd.DataFrame) -> list[Json]:
    """Count photos by class and split, the first classes by name."""
    table = pd.crosstab(catalog["label"], catalog["split"]).reindex(columns=["train", "validation", "test"])
    table = table.fillna(0).astype(int)
    table["all"] = table.sum(axis=1)
    rows: list[Json] = table.head(MOST_CLASSES).reset_index().to_dict("records")
    return rows


def per_class(metrics: Json, catalog: pd.DataFrame) -> list[Json]:
    """List classes with the least F1 first, with their numbers of training photos."""
    training = catalog.loc[catalog["split"] == "train", "label"].value_counts()
    rows = sorted(metrics["test"]["per_class"], key=lambda row: (row["f1"], row["class"]))
    return [row | {"training": int(training.get(row["class"], 0))} for row in rows[:MOST_CLASSES]]


def curves(history: pd.DataFrame) -> Json | None:
    """Draw accuracy and loss by epoch; None without epochs."""
    from headstart.report.charts import history_chart

    if history.empty:
        return None
    what = "by epoch for training and validation photos, stage after stage"
    return {
        "accuracy": inline_svg(lambda: history_chart(history, "accuracy"), "accuracy", f"Accuracy {what}"),
        "loss": inline_svg(lambda: history_chart(history, "loss"), "loss", f"Cross-entropy loss {what}"),
        "stages": [
            f"{stage} ({counted(len(rows), 'strength' if stage == 'probe' else 'epoch')})"
            for stage, rows in history.groupby("stage", sort=False)
        ],
    }


def confusion(metrics: Json, tables: RunTables, names: dict[str, str]) -> Markup:
    """Draw the confusion matrix, classes that are alike side by side."""
    from headstart.report.charts import confusion_chart, similarity_order

    labels = [row["class"] for row in metrics["test"]["per_class"]]
    counts = np.array(metrics["test"]["confusion_matrix"], np.int64)
    known = tables.class_names == labels
    order = similarity_order(counts, tables.mean_probabilities() if known else np.zeros_like(counts, float))
    shown = [names[labels[index]] for index in order]
    right = int(np.trace(counts))
    description = (
        f"Confusion matrix of {counted(len(labels), 'class')}: {right:,} of {counted(int(counts.sum()), 'test photo')} "
        "on the diagonal, where prediction and truth agree. The most frequent confusions are listed below."
    )
    return inline_svg(lambda: confusion_chart(counts[np.ix_(order, order)], shown), "confusion", description)


def pairs(selection: Selection, album: Album) -> list[tuple[ConfusedPair, list[Card]]]:
    """Give each confused pair its pictures."""
    return [(pair, cards(pair.shown, album.thumbnail)) for pair in selection.pairs]


def looks(selection: Selection, album: Album) -> list[tuple[str, list[Card]]]:
    """Give right and wrong photos their heatmaps; those without are left out, and so is a part without any."""
    parts = [("Right", selection.right), ("Wrong", selection.wrong)]
    found = [(title, cards(photos, album.heatmap)) for title, photos in parts]
    pictured = [(title, [card for card in every if card.picture]) for title, every in found]
    return [(title, every) for title, every in pictured if every]


def suspects(metrics: Json, selection: Selection, album: Album) -> Json | None:
    """Part the photos with contradicted labels into as many as may be wrong and the others, which may just be hard.

    None where labels were not looked at, or there is nothing to show of them.
    """
    issues, shown = metrics.get("label_issues"), selection.suspects
    # An older run says nothing of how many.
    number = issues["suspects"] if issues else len(shown)
    if not shown and (number or not issues):
        return None
    opinion = (issues or {}).get("opinion")
    return {
        "number": number,
        "photos": issues["photos"] if issues else None,
        "opinion": opinion_text(opinion) if opinion and number else "",
        "wrong": cards(shown[:number], album.thumbnail),
        "hard": cards(shown[number:], album.thumbnail),
    }


def calibration(metrics: Json) -> Json | None:
    """Draw how far probabilities can be trusted; None where it was not measured."""
    from headstart.report.charts import reliability_chart

    measured = metrics.get("calibration")
    if not measured:
        return None
    before, after = measured["test"]["before"], measured["test"]["after"]
    description = (
        "Accuracy over the probability of the prediction, on test photos, before and after calibration: "
        f"expected calibration error {before['ece']:.3f} before, {after['ece']:.3f} after"
    )
    return {"chart": inline_svg(lambda: reliability_chart(before, after), "reliability", description)}


def rejection(metrics: Json) -> Json | None:
    """Draw what a threshold of acceptance gives and costs; None where it was not measured."""
    from headstart.report.charts import coverage_chart

    measured = metrics.get("rejection")
    if not measured:
        return None
    curve, least = measured.get("curve") or [], measured["min_accuracy"]
    point = measured.get("test")
    point = point if point and point.get("accuracy") is not None else None
    description = "Accuracy of the test photos that are accepted, over the share of photos that are accepted"
    if point:
        description += f": {point['accuracy']:.1%} right among {point['coverage']:.1%} at the threshold"
    return {"chart": inline_svg(lambda: coverage_chart(curve, least, point), "coverage", description)}


def shown_names(names: dict[str, str]) -> Callable[[str], str]:
    """Return what the page calls a class: readable, and of bearable length."""
    return lambda label: shortened(names.get(label, label), _LONGEST_NAME)
