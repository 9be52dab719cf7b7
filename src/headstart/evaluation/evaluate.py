"""Measuring a classifier on labelled photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headstart.atomic import write_json, write_table
from headstart.cache import cache_folder
from headstart.classifier import Classifier
from headstart.console import Console
from headstart.errors import HeadstartError, counted, listed
from headstart.evaluation.calibration import calibration_error
from headstart.evaluation.metrics import accuracy_text, measure, prediction_table
from headstart.evaluation.rejection import accepted_of, accepted_text
from headstart.photos.catalog import problem_table
from headstart.photos.datasets import read_photos
from headstart.run_folder import run_beside


def evaluate(
    classifier: Classifier, photos: str | Path, output: Path | None, console: Console, folder: Path | None = None
) -> dict[str, Any]:
    """Measure a classifier on labelled photos, on their test split where they have one.

    Args:
        classifier: a loaded classifier.
        photos: a folder with a folder per class, a table, or the name of a dataset; see `read_photos`.
        output: a folder to write metrics.json, predictions.csv, problems.csv and confusion.png into, if any.
        console: where to print.
        folder: that the classifier was loaded from. Where its run lies there too, photos that it learnt from are told.

    Returns:
        The metrics of `measure`, with the number of photos that could not be read as `unreadable`, `calibration` as
        `calibration_error` returns it, and `accepted` as `accepted_of` does (None where the classifier accepts all).
        `learnt_from` counts the photos that its run had as training or validation photos; None where that is not known.

    Raises:
        HeadstartError: when the photos have a class that the classifier does not know.
    """
    catalog = read_photos(photos, cache_folder(), console)
    unknown = [name for name in catalog.class_names if name not in classifier.class_names]
    if unknown:
        raise HeadstartError(
            f"{photos}: has classes that the classifier does not know: {listed([repr(name) for name in unknown])}; "
            f"expected only {listed([repr(name) for name in classifier.class_names])}.",
            "Rename these folders to the classifier's class names, or leave them out.",
        )
    table = catalog.photos
    if (table["split"] == "test").any():
        table = table[table["split"] == "test"]
        console.say("Measuring on the test split of these photos.")
    index = {name: number for number, name in enumerate(classifier.class_names)}
    paths, labels, rows, accepted = [], [], [], []
    problems: list[tuple[str, str, str]] = []
    with console.progress("photos", len(table)) as advance:
        predictions = classifier.stream([catalog.root / path for path in table["path"]])
        for path, label, prediction in zip(table["path"], table["label"], predictions, strict=True):
            advance(1)
            if prediction.probabilities is None:
                problems.append((path, "unreadable", prediction.error))
                continue
            paths.append(path)
            labels.append(index[label])
            rows.append(prediction.probabilities)
            accepted.append(prediction.accepted)
    if not rows:
        raise HeadstartError(f"{photos}: none of its photos could be read.", "Check the files.")
    if problems:
        console.warn(
            f"{counted(len(problems), 'photo')} could not be read and left out: {listed([p for p, _, _ in problems])}"
        )
    truth, probabilities = np.array(labels, np.int64), np.stack(rows)
    metrics = measure(truth, probabilities, classifier.class_names)
    metrics |= {"unreadable": len(problems), "calibration": calibration_error(probabilities, truth), "accepted": None}
    metrics["learnt_from"] = _learnt_from(table[table["path"].isin(paths)], folder)
    further = {}
    if classifier.rejection is not None:
        further["accepted"] = np.array(accepted, bool)
        metrics["accepted"] = accepted_of(further["accepted"], probabilities.argmax(axis=1) == truth)
    _tell(metrics, console)
    if output is not None:
        from headstart.report.plots import write_confusion_plot

        output.mkdir(parents=True, exist_ok=True)
        for name, rows_of in (
            ("predictions.csv", prediction_table(paths, truth, probabilities, classifier.class_names, further)),
            ("problems.csv", problem_table(problems)),
        ):
            write_table(output / name, rows_of)
        write_confusion_plot(metrics["confusion_matrix"], classifier.class_names, output / "confusion.png")
        write_json(output / "metrics.json", metrics)
    return metrics


def _learnt_from(photos: pd.DataFrame, folder: Path | None) -> int | None:
    """Count the photos that a classifier's run learnt from or chose by, by their files' contents."""
    run = run_beside(folder) if folder is not None else None
    if run is None:
        return None
    theirs = run.read_catalog()
    return int(photos["digest"].isin(theirs[theirs["split"] != "test"]["digest"]).sum())


def _tell(metrics: dict[str, Any], console: Console) -> None:
    console.say(
        f"Accuracy {accuracy_text(metrics)}, macro F1 {metrics['macro_f1']:.3f}, log loss {metrics['log_loss']:.3f}"
    )
    console.say(f"Calibration error (ECE) {metrics['calibration']['ece']:.3f}")
    if metrics["accepted"] is not None:
        console.say(f"Accepted {accepted_text(metrics['accepted'])}")
    if metrics["learnt_from"]:
        console.warn(
            f"{metrics['learnt_from']:,} of these {metrics['photos']:,} photos were training or validation photos of "
            "this classifier: it knows them, and on new photos it is right less often than these numbers say."
        )
