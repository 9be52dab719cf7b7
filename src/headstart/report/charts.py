"""The report's own figures, which become SVG in the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from headstart.report.figure import shortened
from headstart.report.inline_svg import BLUE, ORANGE
from headstart.report.plots import draw_history

# In the matrix, halfway between the colours of the light and the dark page.
RIGHT, WRONG = "#4a90d9", "#d9722e"
# On a phone, a chart of this width in inches needs no scrolling and its text can be read.
_WIDTH = 4.0
# Names are shown up to the first, counts up to the second; with more classes than the last, ordering takes too long.
_NAMED_CLASSES, _COUNTED_CLASSES, _ORDERED_CLASSES = 130, 25, 1000
_CURVE_POINTS, _LEAST_COVERAGE = 200, 0.05


def history_chart(history: pd.DataFrame, kind: str) -> Figure:
    """Draw the `accuracy` or the `loss` by epoch of all stages."""
    figure, axes = _chart(3.0)
    draw_history(axes, history, kind, numbered=True)
    axes.set_xlabel("epoch (probe: strength), stages in turn")
    return figure


def similarity_order(counts: npt.NDArray[np.int64], mean_probabilities: npt.NDArray[np.float64]) -> list[int]:
    """Order classes so that those which are taken for each other stand side by side.

    Hierarchical clustering with average linkage, its leaves in the order that brings neighbours closest (Bar-Joseph et
    al., 2001).

    Args:
        counts: (num_classes, num_classes) of test photos, rows truth.
        mean_probabilities: (num_classes, num_classes); what photos of a row's class get for a column's.

    Returns:
        Class indices; as they are with fewer than 3 or more than 1,000 classes.
    """
    number = len(counts)
    if not 3 <= number <= _ORDERED_CLASSES or mean_probabilities.shape != counts.shape:
        return list(range(number))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    alike = shares + mean_probabilities
    alike = alike + alike.T
    np.fill_diagonal(alike, 0)
    distances = squareform(1 - alike / max(alike.max(), 1e-12), checks=False)
    return [int(leaf) for leaf in leaves_list(optimal_leaf_ordering(linkage(distances, "average"), distances))]


def confusion_chart(counts: npt.NDArray[np.int64], names: list[str]) -> Figure:
    """Draw a confusion matrix in the order given: right ones blue, mistakes orange, the stronger the more of a row.

    It has counts in up to 25 classes, and names in up to 130.
    """
    number = len(names)
    cell = np.interp(number, [2, 10, 25, 60, 130], [0.55, 0.45, 0.32, 0.18, 0.105])
    side = number * cell if number <= _NAMED_CLASSES else 7.0
    shown = [shortened(name, 24) for name in names] if number <= _NAMED_CLASSES else []
    size = 9 if number <= 25 else max(6.2, 60 * cell)
    # Letters are about 0.6 of their size wide; a point is 1/72 of an inch.
    margin = 0.6 + max((len(name) for name in shown), default=0) * 0.6 * size / 72
    figure = Figure(figsize=(side + margin, side + margin), layout="constrained")
    axes = figure.subplots()
    # Transparent where there is nothing, so that the page's own ground shows.
    axes.imshow(_shades(counts), interpolation="none", aspect="equal")
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.spines[:].set_color("0.6")
    if shown:
        axes.set_xticks(range(number), shown, rotation=90, fontsize=size)
        axes.set_yticks(range(number), shown, fontsize=size)
        axes.tick_params(length=2, pad=2)
    if number <= _COUNTED_CLASSES:
        for row, column in np.argwhere(counts > 0):
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=9)
    else:  # lines that lead the eye from a name to its cell
        for place in np.arange(4.5, number - 1, 5):
            axes.axhline(place, color="0.9", linewidth=0.5, zorder=0)
            axes.axvline(place, color="0.9", linewidth=0.5, zorder=0)
    return figure


def _shades(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return (num_classes, num_classes, 4) RGBA."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shades = np.empty((*counts.shape, 4))
    shades[..., :3] = to_rgb(WRONG)
    shades[np.diag_indices(len(counts))] = (*to_rgb(RIGHT), 0)
    # A single mistake among many photos can still be seen, and a count on the strongest shade can still be read.
    strongest = 0.64 if len(counts) <= _COUNTED_CLASSES else 1.0
    shades[..., 3] = np.where(shares > 0, 0.12 + (strongest - 0.12) * np.sqrt(shares), 0)
    return np.asarray(np.rint(255 * shades), np.uint8)


def reliability_chart(before: dict[str, Any], after: dict[str, Any]) -> Figure:
    """Draw accuracy over confidence, before and after calibration; on the diagonal, probabilities are what they say."""
    figure, axes = _chart(3.6)
    axes.plot([0, 100], [0, 100], "--", color="0.6", linewidth=1)
    styles: dict[str, dict[str, Any]] = {
        "before": {"color": ORANGE, "linestyle": ":", "marker": "s"},
        "after": {"color": BLUE, "linestyle": "-", "marker": "o"},
    }
    for name, measured in (("before", before), ("after", after)):
        bins = [row for row in measured["bins"] if row["photos"]]
        confidences, accuracies = ([100 * row[part] for row in bins] for part in ("confidence", "accuracy"))
        axes.plot(confidences, accuracies, markersize=4, linewidth=1.5, label=name, **styles[name])
    axes.set_xlabel("probability of the prediction (%)")
    axes.set_ylabel("right (%)")
    axes.set_xlim(0, 102)
    axes.set_ylim(0, 102)
    axes.legend(frameon=False, loc="upper left")
    return figure


def coverage_chart(curve: list[dict[str, float]], least: float, point: dict[str, float] | None) -> Figure:
    """Draw accuracy over the share of photos that are accepted, the accuracy wanted, and where the threshold is."""
    figure, axes = _chart(3.0)
    # The accuracy of the first few photos is any number.
    kept = [row for row in curve if row["coverage"] >= _LEAST_COVERAGE]
    step = -(-len(kept) // _CURVE_POINTS) or 1
    shown = [*kept[::step], *kept[-1:]]
    axes.axhline(100 * least, color="0.6", linestyle="--", linewidth=1, label=f"wanted: {100 * least:.0f}%")
    axes.plot([100 * row["coverage"] for row in shown], [100 * row["accuracy"] for row in shown], "-", color=BLUE)
    if point is not None:
        place: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 7, "label": "at the threshold"}
        axes.plot([100 * point["coverage"]], [100 * point["accuracy"]], color=ORANGE, **place)
    axes.set_xlabel("photos accepted (%)")
    axes.set_ylabel("right among them (%)")
    axes.set_xlim(0, 102)
    axes.legend(frameon=False, loc="lower left")
    return figure


def _chart(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes: Axes = figure.subplots()
    axes.tick_params(labelsize=9)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
