"""The Keras example's experiment: the same network from scratch, frozen and fine-tuned, and Headstart's default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from headstart.atomic import write_table, write_text
from headstart.beforehand import asked_recipe
from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.network.backbones import backbone_named
from headstart.run import Run, train

# What all three of the example's stages share: photos squashed to a square, its augmentation, Adam at a constant
# rate on batches of 64, plain cross-entropy, and the last epoch's weights.
_EXAMPLE: dict[str, Any] = {
    "resize_policy": "squash",
    "augmentation": "example",
    "optimiser": "adam",
    "schedule": "constant",
    "batch_size": 64,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "warmup_epochs": 0.0,
    "class_weights": "none",
    "patience": 1000,
    "keep": "last",
    "refit": False,
    "num_views": 4,
}


@dataclass(frozen=True)
class Arm:
    """One way of training that is compared: its name, which is also its run folder's, and its choices."""

    name: str
    told: str
    choices: dict[str, Any]


# "Image classification via fine-tuning with EfficientNet" (keras.io): its learning rates and epochs, stage by stage.
ARMS = (
    Arm(
        "scratch",
        "from scratch",
        _EXAMPLE
        | {"weights": "none", "learning_rate": 1e-3, "head_learning_rate": 1e-3, "epochs": 40, "drop_path_rate": 0.2}
        | {"ema_decay": 0.0},
    ),
    Arm("frozen", "frozen, new head", _EXAMPLE | {"head": "example", "unfreeze": 0}),
    Arm(
        "tuned",
        "frozen, then fine-tuned",
        _EXAMPLE | {"head": "example", "unfreeze": 1, "learning_rate": 1e-4, "head_learning_rate": 1e-4, "epochs": 10},
    ),
    Arm("headstart", "Headstart's default", {}),
)


def compare(
    photos: str | Path,
    output: str | Path = "headstart-compare",
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    time_limit: float | None = None,
    cache: str | Path | None = None,
    console: Console | None = None,
    **choices: Any,
) -> pd.DataFrame:
    """Train the same network in four ways on the same split and compare them.

    Args:
        photos: as for `headstart.train`.
        output: a folder; each arm's run lies in it under its name (scratch, frozen, tuned, headstart), beside
            `compare.csv`, `compare.md` and `compare.png`. An interrupted comparison is resumed.
        overrides: by an arm's name, choices of `Recipe` that replace the arm's own.
        time_limit: seconds of training for each arm, one epoch at least.
        cache: the cache folder.
        console: where to print.
        choices: fields of `Recipe` that all arms share: backbone, image_size, seed and so on.

    Returns:
        A row an arm: arm, validation and test accuracy (0 to 1) with their 95% intervals, seconds of training and in
        all, epochs, parameters trained, note.

    Raises:
        HeadstartError: as `headstart.train` does, and for an arm that does not exist.
    """
    overrides, console, folder = overrides or {}, console or Console(), Path(output)
    unknown = set(overrides) - {arm.name for arm in ARMS}
    if unknown:
        raise HeadstartError(
            f"{', '.join(sorted(unknown))}: no such arm; expected {', '.join(arm.name for arm in ARMS)}.", "Name one."
        )
    every: dict[str, dict[str, Any]] = {}
    for arm in ARMS:
        chosen = {**arm.choices, **choices, "time_limit": time_limit, **overrides.get(arm.name, {})}
        if arm.choices and chosen.get("image_size") is None:
            # The example trains at each network's own size.
            chosen["image_size"] = backbone_named(chosen.get("backbone") or "lite0").image_size
        asked_recipe(photos, None, chosen)  # so that a mistake in the last arm is told before the first one trains
        every[arm.name] = chosen
    runs: list[tuple[Arm, Run]] = []
    for arm in ARMS:
        console.say(f"\n{arm.told} ({folder / arm.name})")
        runs.append((arm, train(photos, folder / arm.name, cache=cache, console=console, **every[arm.name])))

    table = pd.DataFrame([_row(arm, run) for arm, run in runs])
    write_table(folder / "compare.csv", table)
    write_text(folder / "compare.md", comparison_text(table))
    from headstart.report.figure import write_picture
    from headstart.report.plots import comparison_figure

    histories = {arm.told: run.history for arm, run in runs}
    write_picture(comparison_figure(histories), folder / "compare.png")
    console.say("\n" + comparison_text(table))
    console.say(f"Picture     {folder / 'compare.png'}")
    return table


def _row(arm: Arm, run: Run) -> dict[str, Any]:
    metrics = run.metrics
    row: dict[str, Any] = {"arm": arm.told}
    for split in ("validation", "test"):
        low, high = metrics[split]["accuracy_interval"]
        row |= {f"{split}_accuracy": metrics[split]["accuracy"], f"{split}_low": low, f"{split}_high": high}
    history = run.history
    trained = history[history["stage"] != "probe"]
    limits = [stage["stopped"] for stage in metrics["stages"].values() if stage.get("stopped")]
    return row | {
        "training_seconds": sum(stage["seconds"] for stage in metrics["stages"].values()),
        "seconds": metrics["seconds"]["total"],
        "epochs": len(trained),
        "parameters": max(stage["parameters"] for stage in metrics["stages"].values()),
        "note": "; ".join(limits),
    }


def comparison_text(table: pd.DataFrame) -> str:
    """Return a comparison as a Markdown table, which also reads well as it is."""
    header = ["", "validation %", "test % (95% interval)", "training s", "in all s", "epochs", "parameters trained", ""]
    rows = [
        [
            row["arm"],
            f"{100 * row['validation_accuracy']:.1f}",
            f"{100 * row['test_accuracy']:.1f} ({100 * row['test_low']:.1f} to {100 * row['test_high']:.1f})",
            f"{row['training_seconds']:.1f}",
            f"{row['seconds']:.1f}",
            f"{row['epochs']}",
            f"{row['parameters']:,}",
            row["note"],
        ]
        for row in table.to_dict("records")
    ]
    widths = [max(len(cells[column]) for cells in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
