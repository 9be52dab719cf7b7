"""Accuracy against time, with every point named where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator
from matplotlib.transforms import Bbox

OURS, THEIRS = "#0b63b0", "#5a5a5a"


@dataclass(frozen=True)
class Point:
    """A contestant: seconds and accuracy (0 to 1) where it has them; `is_budget` puts it on Headstart's curve."""

    label: str
    seconds: float | None
    accuracy: float | None
    is_ours: bool
    is_budget: bool


def draw(points: Sequence[Point], num_sets: int, path: Path) -> None:
    """Draw the points on white, whatever the page's own background; those that have no accuracy as a line."""
    with plt.style.context("default"):
        figure, axes = plt.subplots(figsize=(8, 5), facecolor="white", layout="constrained")
        placed = [point for point in points if point.seconds and point.accuracy is not None]
        for point in placed:
            axes.plot(point.seconds, 100 * point.accuracy, "o" if point.is_ours else "s", color=_colour(point), ms=7)
        curve = sorted((point.seconds, 100 * point.accuracy) for point in placed if point.is_budget)
        if curve:
            axes.plot(*zip(*curve, strict=True), "-", color=OURS, linewidth=1.5, zorder=1)
        axes.set_xscale("log")
        axes.margins(0.2, 0.15)
        _draw_times(axes, [point for point in points if point.seconds and point.accuracy is None])
        axes.set_xlabel("wall time from folder to saved model, s (log scale)")
        over = f", mean over {num_sets} sets" if num_sets > 1 else ""
        axes.set_ylabel(f"test accuracy, %{over}")
        axes.grid(True, which="major", color="#dddddd", linewidth=0.7)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        _name(axes, placed, curve)
        figure.savefig(path, dpi=150, facecolor="white")
        plt.close(figure)


def _colour(point: Point) -> str:
    return OURS if point.is_ours else THEIRS


def _draw_times(axes: Axes, points: Sequence[Point]) -> None:
    for point in points:
        axes.axvline(point.seconds, color=THEIRS, linestyle=":", linewidth=1.2)
        axes.annotate(
            point.label,
            (point.seconds, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(-4, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=8,
            color=THEIRS,
        )


def _name(axes: Axes, points: Sequence[Point], curve: Sequence[tuple[float, float]]) -> None:
    """Write each point's name at the first place around it that is inside the axes and free."""
    axes.figure.canvas.draw()
    taken = [_around(*axes.transData.transform((point.seconds, 100 * point.accuracy)), 6) for point in points]
    for start, end in pairwise(axes.transData.transform(spot) for spot in curve):
        taken += [_around(*spot, 2) for spot in np.linspace(start, end, 100)]
    taken += [text.get_window_extent() for text in axes.texts]
    for point in points:
        name = axes.annotate(
            point.label,
            (point.seconds, 100 * point.accuracy),
            textcoords="offset points",
            xytext=(0, 0),
            fontsize=9,
            color=_colour(point),
            fontweight="bold" if point.is_ours else "normal",
        )
        for _ in _places(name):
            box = name.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if inside and axes.bbox.y0 <= box.y0 and not any(box.overlaps(other) for other in taken):
                break
        taken.append(name.get_window_extent())


def _around(x: float, y: float, reach: float) -> Bbox:
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def _places(name: Annotation) -> Iterator[None]:
    """Move a name from place to place around its point, ever farther away."""
    for distance in (8, 16, 26, 38, 52, 70):
        for x, y, horizontal in (
            (distance, 0, "left"),
            (0, distance, "center"),
            (0, -distance, "center"),
            (-distance, 0, "right"),
            (distance, distance, "left"),
            (distance, -distance, "left"),
            (-distance, distance, "right"),
            (-distance, -distance, "right"),
        ):
            name.set_position((x, y))
            name.set_horizontalalignment(horizontal)
            name.set_verticalalignment("center" if y == 0 else "bottom" if y > 0 else "top")
            yield
