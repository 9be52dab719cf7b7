"""The HTML report: one file that needs nothing else, made from the run folder's files alone."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pandas as pd

from headstart.atomic import write_text
from headstart.errors import HeadstartError
from headstart.evaluation.metrics import accuracy_text
from headstart.photos.names import readable_names
from headstart.run_folder import RunFolder

_SHOWN = 20


def report_again(path: Path) -> Path:
    """Make the report of a finished run again.

    Raises:
        HeadstartError: when the folder is not a finished run.
    """
    folder = RunFolder(path)
    if not folder.metrics.exists():
        raise HeadstartError(
            f"{path}: is not a finished run (metrics.json is missing).", "Give the -o folder of `headstart train`."
        )
    write_report(folder, folder.read_metrics())
    return folder.report


def write_report(folder: RunFolder, metrics: dict[str, Any]) -> None:
    """Write `report.html` from the run's files and its metrics."""
    from jinja2 import Environment, PackageLoader

    catalog = pd.read_csv(folder.catalog, dtype=str, keep_default_na=False)
    # A class may well be called NA.
    texts = {"path": str, "label": str, "prediction": str}
    predictions = pd.read_csv(folder.predictions, dtype=texts, keep_default_na=False)
    problems = pd.read_csv(folder.problems, dtype=str, keep_default_na=False)
    wrong = predictions[predictions["label"] != predictions["prediction"]]
    pairs = wrong.groupby(["label", "prediction"]).size().sort_values(ascending=False, kind="stable")
    labels = [row["class"] for row in metrics["test"]["per_class"]]
    environment = Environment(loader=PackageLoader("headstart.report", "."), autoescape=True)
    page = environment.get_template("page.html.jinja").render(
        name=folder.path.resolve().name,
        metrics=metrics,
        accuracy_text=accuracy_text,
        counts=pd.crosstab(catalog["label"], catalog["split"]).sum().to_dict(),
        num_classes=len(labels),
        names=dict(zip(labels, readable_names(labels), strict=True)),
        per_class=sorted(metrics["test"]["per_class"], key=lambda row: (row["f1"], row["class"])),
        pairs=[(truth, found, count) for (truth, found), count in pairs.head(_SHOWN).items()],
        mistakes=wrong.sort_values("probability", ascending=False).head(_SHOWN).to_dict("records"),
        num_mistakes=len(wrong),
        problems=problems.head(5 * _SHOWN).to_dict("records"),
        num_problems=len(problems),
        recipe=folder.recipe.read_text(encoding="utf-8"),
        curves=_inline(folder.curves),
        confusion=_inline(folder.confusion),
    )
    write_text(folder.report, page)


def _inline(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
