"""The HTML report: one file that needs nothing else, made from the run folder's files alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from headstart.atomic import write_text
from headstart.errors import counted
from headstart.photos.names import readable_names
from headstart.report import sections
from headstart.report.album import Album
from headstart.report.charts import RIGHT, WRONG
from headstart.report.next_steps import next_steps
from headstart.report.selection import Selection, select
from headstart.report.tables import RunTables, read_tables
from headstart.run_folder import RunFolder, finished_run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

# Titles of the sections that not every run has, by their anchors; the others are in every report.
_CONTENTS = {
    "next": "What to do next",
    "work": "What was asked and done",
    "grown": "Before and after",
    "photos": "The photos",
    "stages": "Stages",
    "confusion": "Confusion matrix",
    "classes": "Classes",
    "mistakes": "Surest mistakes",
    "looks": "Where it looked",
    "suspects": "Labels",
    "calibration": "Calibration",
    "rejection": "None of these",
    "slices": "Kinds of photos",
    "notes": "Notes",
    "recipe": "Recipe",
}
_ALWAYS = {"next", "work", "photos", "stages", "confusion", "classes", "recipe"}


def report_again(path: Path) -> Path:
    """Make the report of a finished run again.

    Raises:
        HeadstartError: when the folder is not a finished run.
    """
    folder = finished_run(path)
    write_report(folder, folder.read_metrics())
    return folder.report


def write_report(folder: RunFolder, metrics: dict[str, Any]) -> None:
    """Write `report.html` from the run's files and its metrics; what a run lacks is left out.

    Args:
        folder: with its tables, its recipe and, if there are any, its pictures (see `write_thumbnails`).
        metrics: of `metrics.json`, which need not be written yet.
    """
    from jinja2 import Environment, PackageLoader

    tables = read_tables(folder)
    recipe_text = folder.recipe.read_text(encoding="utf-8")
    shown = _shown(metrics, tables, tomllib.loads(recipe_text), select(tables), Album(folder))
    contents = [(anchor, title) for anchor, title in _CONTENTS.items() if anchor in _ALWAYS or shown.get(anchor)]
    environment = Environment(
        loader=PackageLoader("headstart.report", "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html.jinja").render(
        shown, name=folder.path.resolve().name, recipe_text=recipe_text, contents=contents, counted=counted
    )
    # File names need not be UTF-8; the page is.
    write_text(folder.report, page.encode("utf-8", "replace").decode("utf-8"))


def _shown(
    metrics: dict[str, Any], tables: RunTables, recipe: dict[str, Any], selection: Selection, album: Album
) -> dict[str, Any]:
    """Return what the templates name, in the order of the page, in which pictures are given out."""
    labels = [row["class"] for row in metrics["test"]["per_class"]]
    names = dict(zip(labels, readable_names(labels), strict=True))
    problems = tables.problems
    sample = sections.cards(selection.sample, album.thumbnail)
    return {
        "metrics": metrics,
        "test": metrics["test"],
        "num_classes": len(labels),
        "named": sections.shown_names(names),
        "counts": tables.catalog["split"].value_counts().to_dict(),
        "meaning": sections.headline(metrics),
        "steps": next_steps(metrics, tables, recipe),
        "asked": sections.asked(recipe, metrics.get("grown")),
        "plan": sections.planned(recipe),
        "time_told": sections.time_told(metrics),
        "seconds": sections.times(metrics["seconds"]),
        "machine": sections.machine(metrics),
        "grown": metrics.get("grown"),
        "sample": [card for card in sample if card.picture],
        "class_counts": sections.class_counts(tables.catalog),
        "problems": problems.head(sections.MOST_PROBLEMS).to_dict("records"),
        "num_problems": len(problems),
        "severities": bool((problems["severity"] != "").any()),
        "curves": sections.curves(tables.history),
        "confusion": sections.confusion(metrics, tables, names),
        "right_colour": RIGHT,
        "wrong_colour": WRONG,
        "pairs": sections.pairs(selection, album),
        "per_class": sections.per_class(metrics, tables.catalog),
        "mistakes": sections.cards(selection.mistakes, album.thumbnail),
        "num_mistakes": len(tables.mistakes),
        "looks": sections.looks(selection, album),
        "suspects": sections.suspects(metrics, selection, album),
        "calibration": sections.calibration(metrics),
        "rejection": sections.rejection(metrics),
        "slices": (metrics.get("slices") or [])[: sections.MOST_SLICES],
        "notes": metrics.get("notes"),
    }
