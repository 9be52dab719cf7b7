"""The speed and memory of `headstart check`, on photos of which no two are copies.

They are made of the given ones: each is a random part (a third to two thirds of each side, perhaps mirrored) of one of
them, enlarged and saved as a JPEG, so that they cost what photos cost and the search for near duplicates has its usual
work. The time on the clock depends on what else the computer does; the processor's own
time less so.

python benchmarks/check.py PHOTOS --count 10000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from headstart.console import Console
from headstart.photos.audit import audit, examine
from headstart.photos.catalog import Catalog, read_catalog
from headstart.photos.duplicates import candidate_pairs
from headstart.photos.loading import ahead
from measuring import note, report, spread, table

Result = TypeVar("Result")
_READING = "of which reading, decoding and the facts of each photo"


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        note(f"making {options.count} photos")
        _make(read_catalog(options.photos), Path(folder), options)
        catalog = read_catalog(folder)
        measured: dict[str, list[tuple[float, float]]] = {"the whole audit": [], _READING: []}
        for number in range(options.repeats):
            note(f"round {number + 1} of {options.repeats}")
            measured[_READING].append(_timed(lambda: examine(catalog, Console(quiet=True)))[0])
            times, problems = _timed(lambda: audit(catalog).problems)
            measured["the whole audit"].append(times)
    count = len(catalog.photos)
    rows = []
    for name, times in measured.items():
        seconds, processor = zip(*times, strict=True)
        rates = [count / second for second in seconds]
        rows.append([name, spread(seconds), spread(rates, ".0f"), spread([1000 * t / count for t in processor], ".2f")])
    searched, pairs = _timed(lambda: _candidates(100_000))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report(
        "Checking photos",
        [
            table(["", "seconds", "photos/s", "processor time a photo, ms"], rows),
            f"{count:,} photos of {options.width} x {options.width * 3 // 4} pixels; {len(problems)} problems found; "
            f"peak memory {peak:.0f} MiB. Candidates among 100,000 random fingerprints: {pairs:,} in {searched[1]:.1f} "
            "s of processor time.",
        ],
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure headstart check.")
    parser.add_argument("photos", type=Path, help="a folder with a folder per class")
    parser.add_argument("--count", type=int, default=10_000, help="photos to check (10000)")
    parser.add_argument("--width", type=int, default=500, help="of each, in pixels; 4 to 3 (500)")
    parser.add_argument("--repeats", type=int, default=1, help="rounds (1)")
    return parser.parse_args()


def _make(catalog: Catalog, folder: Path, options: argparse.Namespace) -> None:
    for label in catalog.class_names:
        (folder / label).mkdir()
    rows = catalog.photos[["path", "label"]].to_numpy(str)

    def make(number: int) -> None:
        draw = np.random.default_rng(number)
        path, label = rows[number % len(rows)]
        with Image.open(catalog.root / path) as image:
            photo = image.convert("RGB")
        share = draw.uniform(1 / 3, 2 / 3, 2)
        left, top = draw.uniform(0, 1 - share) * photo.size
        right, bottom = (left, top) + share * photo.size
        part = photo.resize((options.width, options.width * 3 // 4), box=(left, top, right, bottom))
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else part
        part.save(folder / label / f"{number:06}.jpg", quality=90)

    for _ in ahead(range(options.count), make):
        pass


def _candidates(count: int) -> int:
    return len(candidate_pairs(np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)))


def _timed(work: Callable[[], Result]) -> tuple[tuple[float, float], Result]:
    """Return the seconds on the clock and of processor time, and what the work gave."""
    started, processor = time.perf_counter(), time.process_time()
    result = work()
    return (time.perf_counter() - started, time.process_time() - processor), result


if __name__ == "__main__":
    main()
