"""What an export is like on this computer: its size, its accuracy, its speed."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.classifier import Classifier
from headstart.export.formats import Format
from headstart.export.parity import Runtime, views_of
from headstart.export.photos import Labelled
from headstart.photos.views import Pixels

_BATCH_SIZE = 16
_LATENCY_RUNS = 30
_THROUGHPUT_SECONDS = 2.0


@dataclass(frozen=True)
class Measured:
    """Bytes of all files, accuracy (0 to 1) on so many photos, milliseconds for one photo, photos/s in batches of 16.

    Speeds are of photos of the network's size, in memory: decoding is not in them. Where the classifier was fitted on
    the photos (`learnt_from`; None: not known), the accuracy compares precisions and promises nothing of new photos.
    """

    bytes: int
    accuracy: float
    photos: int
    learnt_from: bool | None
    milliseconds: float
    photos_per_second: float


def measure_export(
    made: Format, model: Path, run: Runtime, classifier: Classifier, validation: Labelled, first: npt.NDArray[np.int64]
) -> Measured:
    """Measure an exported model in its own library.

    Args:
        made: its format.
        model: its file to open first.
        run: the model, opened.
        classifier: what was exported.
        validation: labelled photos.
        first: (n,) class indices that the model puts first on them.
    """
    views = views_of(validation.photos[:_BATCH_SIZE], classifier)
    return Measured(
        bytes=sum(model.with_suffix(Path(name).suffix).stat().st_size for name in made.files),
        accuracy=float((first == validation.labels).mean()),
        photos=len(validation),
        learnt_from=validation.learnt_from,
        milliseconds=_latency(run, views),
        photos_per_second=_throughput(run, views),
    )


def _latency(run: Runtime, views: Pixels) -> float:
    """Return the median milliseconds of one photo alone."""
    seconds = []
    for number in range(_LATENCY_RUNS):
        started = time.perf_counter()
        run(views[number % len(views)][None])
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def _throughput(run: Runtime, views: Pixels) -> float:
    """Return photos/s in batches, after one that allocates."""
    batch = np.concatenate([views] * -(-_BATCH_SIZE // len(views)))[:_BATCH_SIZE]
    run(batch)
    started, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - started) < _THROUGHPUT_SECONDS:
        run(batch)
        count += len(batch)
    return count / taken


def told_measured(measured: Measured) -> str:
    """Write what was measured on a line."""
    known = " that it was fitted on" if measured.learnt_from else ""
    return (
        f"{measured.bytes / 1e6:.1f} MB; accuracy {100 * measured.accuracy:.1f}% of {measured.photos:,} photos{known}; "
        f"{measured.milliseconds:.1f} ms a photo, {measured.photos_per_second:.0f} photos/s in batches"
    )
