"""Where the time of a run went, and how far each stage is from its floor: the least that this computer could take.

A floor is what the stage had to do, divided by the speed at which this computer does that and nothing else; `FLOORS`
says of what, stage by stage. Speeds (`headstart.peaks`) are measured once the run is finished, so they change nothing
in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

from torch import nn

from headstart.console import Console
from headstart.network.cut import boundary_of
from headstart.network.summary import suffix_multiply_adds
from headstart.peaks import Peaks, hashing_speed, together, writing_seconds
from headstart.photos.catalog import Catalog
from headstart.photos.loading import num_workers
from headstart.photos.split import SPLITS
from headstart.recipe import Recipe
from headstart.run_folder import RunFolder
from headstart.stopwatch import Stopwatch
from headstart.training.data import LEARNING, TrainingData
from headstart.training.keeping import Kept

FLOORS = {
    "starting": "none: Python reads PyTorch and the other libraries",
    "scanning": "all photos' bytes at the speed of the same hash on a buffer in memory, in as many threads",
    "decoding": "its views with nothing else to do; a part of embedding, given as thread-seconds / threads",
    "embedding": "its views by the engine on pixels in memory, and decoding: both on a CPU, else the longer",
    "checking": "every photo decoded once, with nothing else to do",
    "probing": "4 x rows x features x classes for each evaluation of L-BFGS, at the peak of matrix products",
    "planning": "none: it measures what this computer can do",
    "fine-tuning": "6 x multiply-adds of what trains x photos x epochs at that peak; from pixels, and decoding",
    "refitting": "the same of its photos and epochs; of a probe, as in probing",
    "evaluation": "2 x multiply-adds x validation and test photos at that peak, and embedding what was not stored",
    "writing": "one file as large as what the run folder holds, but for checkpoints",
    "other": "none: building the network, reading its weights, splitting",
    "total": "the sum, but for decoding",
}
# A floor below this, in seconds, is printed as nothing, and says nothing.
_LEAST_FLOOR = 5e-4
# Something trained: the boundary before it, the photos' size in pixels, how many, epochs.
Part = tuple[int, int, int, int]
# A floor in seconds, and what it is of.
Floor = tuple[float, str]


@dataclass(frozen=True)
class Row:
    """A stage of a run: its seconds, the floor under them (None where there is none), and what it had to do."""

    stage: str
    seconds: float
    floor: float | None
    remark: str

    @property
    def ratio(self) -> float | None:
        """How many times its floor the stage took; None where it has none or next to nothing to do."""
        return self.seconds / self.floor if self.floor and self.floor >= _LEAST_FLOOR else None


def profile_run(
    folder: RunFolder,
    catalog: Catalog,
    data: TrainingData,
    network: nn.Module,
    kept: Kept,
    recipe: Recipe,
    metrics: dict[str, Any],
    watch: Stopwatch,
) -> None:
    """Measure the floors of a finished run, and add `profile` to its metrics: a dictionary for each stage."""
    seconds, total = dict(watch.seconds), watch.elapsed
    embedded = [done for seen in data.sizes for done in seen.embedder.passes if done.label not in SPLITS]
    if embedded:
        seconds["decoding"] = sum(done.decoding_seconds for done in embedded) / num_workers()
    found = _floors(folder, catalog, data, network, kept, recipe, metrics["stages"])
    epochs_seconds = sum(stage["seconds"] for stage in metrics["stages"].values() if "epochs" in stage)
    if seconds.get("fine-tuning", 0.0) < epochs_seconds:
        del found["fine-tuning"]  # the run was resumed: some of its epochs are not in its seconds
    rows = profile_rows(seconds, found, total)
    metrics["profile"] = [{**asdict(row), "ratio": row.ratio} for row in rows]
    folder.write_metrics(metrics)


def profile_rows(seconds: Mapping[str, float], floors: Mapping[str, Floor], total: float) -> list[Row]:
    """Return a row for each stage, whether it was done or not, for what is in none of them, and for all."""
    rows = []
    for stage in list(FLOORS)[:-2]:
        floor, remark = floors.get(stage, (None, "")) if stage in seconds else (None, "not done")
        rows.append(Row(stage, seconds.get(stage, 0.0), floor, remark))
    apart = [row for row in rows if row.stage != "decoding"]
    rows.append(Row("other", total - sum(row.seconds for row in apart), None, ""))
    return [*rows, Row("total", total, sum(row.floor or 0.0 for row in apart), "")]


def tell_profile(metrics: dict[str, Any], console: Console) -> None:
    """Print the profile that a run's metrics hold."""
    if "profile" not in metrics:
        console.say("Profile     none: the run was made without --profile")
        return
    fields = ("stage", "seconds", "floor", "remark")
    console.say("\n" + profile_text([Row(*(row[name] for name in fields)) for row in metrics["profile"]]))


def profile_text(rows: Sequence[Row]) -> str:
    """Return a profile as an aligned table, and what its floors are."""

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    lines = [f"{'Profile':<11} {'seconds':>8} {'floor':>8} {'ratio':>7}"]
    for row in rows:
        line = f"{row.stage:<11} {row.seconds:>8.2f} {number(row.floor, '.3f'):>8} {number(row.ratio, '.1f'):>7}"
        lines.append(f"{line}  {row.remark}".rstrip())
    lines += ["", "Floors:", *(f"{stage:<11} {text}" for stage, text in FLOORS.items())]
    if any(row.ratio is not None and row.ratio < 1 for row in rows):
        lines.append("A ratio below 1: other programs were busier while the floors were measured than during the run.")
    return "\n".join(lines)


def training_work(parts: Sequence[Part], multiply_adds: Callable[[int, int], int]) -> tuple[int, int]:
    """Return the floating-point operations of training, and the views decoded for it.

    Args:
        parts: what was trained: boundary, image size, photos, epochs.
        multiply_adds: of a photo's forward pass from a boundary, by its size; the backward pass takes twice as many.
    """
    operations = sum(
        3 * 2 * multiply_adds(boundary, size) * photos * epochs for boundary, size, photos, epochs in parts
    )
    return operations, sum(photos * epochs for boundary, _, photos, epochs in parts if boundary == 0)


def _floors(
    folder: RunFolder,
    catalog: Catalog,
    data: TrainingData,
    network: nn.Module,
    kept: Kept,
    recipe: Recipe,
    stages: dict[str, Any],
) -> dict[str, Floor]:
    every = [photo for split in SPLITS for photo in data.photos[split]]
    by_size = [Peaks(seen.embedder, every, recipe.precision) for seen in data.sizes]
    peaks = by_size[0]
    multiply_adds = cache(partial(suffix_multiply_adds, network))
    embedded = [[done for done in seen.embedder.passes if done.label not in SPLITS] for seen in data.sizes]
    evaluated = [[done for done in seen.embedder.passes if done.label in SPLITS] for seen in data.sizes]
    views = sum(done.views for passes in embedded for done in passes)
    epochs = [stage["epochs"] for stage in stages.values() if "epochs" in stage]  # of the steps, in their order
    steps = zip(recipe.plan.steps if recipe.plan else (), epochs, strict=False)
    tuned = [
        (
            boundary_of(network, step.unfreeze),
            step.image_size or data.image_size,
            len(data.rows_of_part(step.one_in)),
            count,
        )
        for step, count in steps
    ]
    learning = len(kept.seen_of(data).photos[LEARNING])
    refitted = [(kept.boundary, kept.image_size, learning, kept.step.refit_epochs)] if kept.step else []
    probe, measured = stages.get("probe", {}), len(data.photos["validation"]) + len(data.photos["test"])

    def training(parts: Sequence[Part], probing: int = 0) -> Floor:
        operations, fresh = training_work(parts, multiply_adds)
        decoding = fresh / peaks.decoding_speed((1,)) if fresh else 0.0
        seconds = together(operations / peaks.training, decoding, peaks.trains_on_cpu) + probing / peaks.products
        return _floor(seconds, (operations + probing) / 1e9, "GFLOP")

    photo_bytes = sum((catalog.root / name).stat().st_size for name in catalog.photos["path"])
    forward, run_bytes = 2 * multiply_adds(kept.boundary, kept.image_size) * measured, folder_bytes(folder)
    decoding = sum(here.decoding(passes) for here, passes in zip(by_size, embedded, strict=True))
    embedding, testing = (
        sum(here.embedding(passes) for here, passes in zip(by_size, done, strict=True))
        for done in (embedded, evaluated)
    )
    return {
        "scanning": _floor(photo_bytes / hashing_speed(), photo_bytes / 1e6, "MB"),
        "decoding": _floor(decoding, views, "views"),
        "embedding": _floor(embedding, views, "views"),
        "checking": _floor(len(catalog.photos) / peaks.decoding_speed((0,)), len(catalog.photos), "views"),
        "probing": training([], probe.get("operations", 0)),
        "fine-tuning": training(tuned),
        "refitting": training(refitted, probe.get("refit_operations", 0)),
        "evaluation": (forward / peaks.training + testing, f"{measured:,} photos"),
        "writing": _floor(writing_seconds(folder.path, run_bytes), run_bytes / 1e6, "MB"),
    }


def _floor(seconds: float, amount: float, unit: str) -> Floor:
    form = ",.0f" if unit == "views" else ",.1f"
    at_best = f", at best {amount / seconds:,.0f} {unit}/s" if seconds else ""
    return seconds, f"{amount:{form}} {unit}{at_best}"


def folder_bytes(folder: RunFolder) -> int:
    """Return the bytes of a run folder's files, but for checkpoints, which are not written at its end."""
    files = (path for path in folder.path.rglob("*") if folder.checkpoints not in path.parents)
    return sum(path.stat().st_size for path in files if path.is_file())
