"""The plots of a run, from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from headstart.photos.names import readable_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from headstart.report.figure import Picture

_TRAINING, _VALIDATION = "#b3531d", "#1f5fa8"


def history_figure(history: pd.DataFrame) -> Picture:
    """Draw accuracy and loss by epoch, training and validation, with all stages one after another.

    Args:
        history: the run's `history.csv`.
    """
    from headstart.report.figure import Picture

    figure = Picture(figsize=(9, 3.6), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        draw_history(axes, history, kind)
        axes.grid(color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_history(axes: Axes, history: pd.DataFrame, kind: str, numbered: bool = False) -> None:
    """Draw the `accuracy` or the `loss` by epoch, with all stages one after another.

    Args:
        axes: to draw into.
        history: the run's `history.csv`.
        kind: what to draw.
        numbered: whether stages have their numbers, for want of room, instead of their names.
    """
    from matplotlib.ticker import MaxNLocator

    factor, offset = 100 if kind == "accuracy" else 1, 0
    for number, (stage, rows) in enumerate(history.groupby("stage", sort=False)):
        steps = offset + np.arange(1, len(rows) + 1)
        for part, colour in (("train", _TRAINING), ("validation", _VALIDATION)):
            label = {"train": "training", "validation": "validation"}[part] if number == 0 else None
            values = factor * rows[f"{part}_{kind}"]
            axes.plot(steps, values, "o-", color=colour, label=label, markersize=3, linewidth=1.5)
        if number:
            axes.axvline(offset + 0.5, color="0.6", linewidth=0.8, linestyle=":")
        unit = "strengths" if stage == "probe" else "epochs"
        middle = offset + (len(rows) + 1) / 2
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontsize": 8, "color": "0.3"}
        axes.annotate(f"{number + 1}" if numbered else f"{stage} ({unit})", (middle, 1.02), **place)
        offset += len(rows)
    axes.set_xlabel("epoch (for the probe: strength), stages in turn")
    axes.set_ylabel("accuracy (%)" if kind == "accuracy" else "cross-entropy loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if kind == "accuracy":
        axes.legend(frameon=False, loc="best")


def comparison_figure(histories: dict[str, pd.DataFrame]) -> Picture:
    """Draw accuracy by epoch of several runs over each other: training dashed, validation solid.

    Args:
        histories: each run's `history.csv` by the name to show; strengths of the probe are left out, as they are no
            epochs, and a fine-tuning goes on where its head's epochs end.
    """
    from headstart.report.figure import Picture

    figure = Picture(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, history) in enumerate(histories.items()):
        rows = history[history["stage"] != "probe"]
        epochs = np.arange(1, len(rows) + 1)
        # Earlier lines are wider, so that they show below later ones where both are the same.
        style: dict[str, Any] = {
            "color": f"C{number}",
            "label": name,
            "markersize": 3,
            "linewidth": max(1.5, 4 - number),
        }
        axes.plot(epochs, 100 * rows["validation_accuracy"], "o-", **style)
        axes.plot(epochs, 100 * rows["train_accuracy"], "--", color=f"C{number}", linewidth=1)
        if rows["stage"].nunique() > 1:  # where a head's epochs end and fine-tuning begins
            first = int((rows["stage"] == rows["stage"].iloc[0]).sum())
            axes.axvline(first + 0.5, color=f"C{number}", linewidth=0.8, linestyle=":")
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy (%)")
    axes.set_title("accuracy on validation photos (solid), and on training photos while training (dashed)", fontsize=10)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    return figure


def confusion_figure(counts: list[list[int]], class_names: list[str]) -> Picture:
    """Draw a confusion matrix: rows are the truth, columns the prediction, shades the share of the row.

    Counts are written in up to 25 classes and names shown up to 130; beyond that the picture alone remains.
    """
    from headstart.report.figure import Picture, caption

    matrix = np.array(counts, float)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    number = len(class_names)
    side = float(np.clip(2.5 + 0.3 * number, 4, 16))
    figure = Picture(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the class's photos", shrink=0.7)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    if number <= 130:
        shown = [caption(name) for name in readable_names(class_names)]
        size = 8 if number <= 30 else 6 if number <= 60 else 4.5
        axes.set_xticks(range(number), shown, rotation=90, fontsize=size)
        axes.set_yticks(range(number), shown, fontsize=size)
    if number <= 25:
        for row, column in np.argwhere(matrix > 0):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, f"{int(matrix[row, column])}", ha="center", va="center", color=colour, fontsize=7)
    return figure


def write_history_plot(history: pd.DataFrame, path: Path) -> None:
    """Write `history_figure` as a PNG file."""
    from headstart.report.figure import write_picture

    write_picture(history_figure(history), path)


def write_confusion_plot(counts: list[list[int]], class_names: list[str], path: Path) -> None:
    """Write `confusion_figure` as a PNG file."""
    from headstart.report.figure import write_picture

    write_picture(confusion_figure(counts, class_names), path)
