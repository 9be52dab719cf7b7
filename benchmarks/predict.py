"""How fast `headstart predict` goes through many photos, next to engine and decoder, and whether its memory grows.

Speed, in this process and in turn: `predict_to` from files to a finished CSV; the engine alone on pixels in memory;
the decoder alone; and the floor, the harmonic sum of the last two, which use the same cores. Memory: the command as a
process of its own, on a few and on very many photos (hard links to the given ones); the peak is the kernel's (`VmHWM`),
so Linux only.

python benchmarks/predict.py PHOTOS --large 100000
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from headstart.classifier import Classifier
from headstart.console import Console
from headstart.photos.catalog import read_catalog
from headstart.photos.decode import read_bytes
from headstart.prediction import predict_to
from measuring import alternate, note, ratios, report, spread, table
from serve import decoder_alone, engine_alone, untrained_classifier

PREDICT, ENGINE, DECODER = "headstart predict, files to CSV", "engine alone, pixels in memory", "decoder alone"
FLOOR = "floor: engine and decoder on the same cores"
Measure = tuple[float, float]


def main() -> None:
    options = _options()
    catalog = read_catalog(options.photos)
    paths = [str(catalog.root / path) for path in catalog.photos["path"]][: options.limit]
    classifier = untrained_classifier(options.backbone)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        contestants: dict[str, Callable[[int], Measure]] = {
            PREDICT: _predict(classifier, paths, Path(name)),
            ENGINE: engine_alone(classifier, options.seconds),
            DECODER: decoder_alone(classifier, [read_bytes(path) for path in paths[:500]]),
        }
        results = alternate(contestants, options.repeats)
        classifier.save(Path(name) / "classifier")
        memory = {count: _peak(Path(name), paths, count) for count in (options.small, options.large) if options.large}
    ours, engine, decoder = (list(zip(*results[name], strict=True)) for name in (PREDICT, ENGINE, DECODER))
    speeds = {PREDICT: ours[0], ENGINE: engine[0], DECODER: decoder[0]}
    speeds[FLOOR] = [1 / (1 / one + 1 / other) for one, other in zip(engine[0], decoder[0], strict=True)]
    rows = [[name, spread(values), spread(ratios(ours[0], values), ".2f")] for name, values in speeds.items()]
    both = [one + other for one, other in zip(engine[1], decoder[1], strict=True)]
    facts = (
        f"{len(paths):,} photos, {options.backbone} at {classifier.preprocessing.image_size} pixels, engine "
        f"{classifier.engine_choice}. Median (least-greatest) of {options.repeats} rounds; ratios are taken round by "
        f"round. Processor time is {spread(ratios(ours[1], both), '.2f')} times that of engine and decoder together."
    )
    parts = [facts, table(["", "photos/s", "headstart predict / this"], rows)]
    if memory:
        told = [[f"{count:,} photos", f"{peak:.0f}", f"{seconds:.0f}"] for count, (peak, seconds) in memory.items()]
        parts.append(table(["", "peak resident, MiB", "seconds"], told))
    report("Prediction", parts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, help="a folder with a folder per class")
    parser.add_argument("--limit", type=int, default=1500, help="photos a round (1500)")
    parser.add_argument("--backbone", default="lite0", help="(lite0)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the engine alone (5)")
    parser.add_argument("--small", type=int, default=1000, help="photos that memory is measured on (1000)")
    parser.add_argument("--large", type=int, default=100_000, help="and many (100000); 0 for none")
    parser.add_argument("--folder", type=Path, help="where the links are made, on the disk of the photos")
    return parser.parse_args()


def _predict(classifier: Classifier, paths: list[str], folder: Path) -> Callable[[int], Measure]:
    classifier.engine()

    def run(number: int) -> Measure:
        started, processor = time.perf_counter(), time.process_time()
        predict_to(classifier, paths, folder / "out.csv", 5, Console(True))
        seconds, used = time.perf_counter() - started, time.process_time() - processor
        return len(paths) / seconds, 1000 * used / len(paths)

    return run


def _peak(folder: Path, paths: list[str], count: int) -> tuple[float, float]:
    """Return the peak memory of the command on so many photos, in MiB, and its seconds."""
    note(f"linking {count:,} photos")
    many = folder / f"many-{count}"
    many.mkdir()
    for number, path in zip(range(count), itertools.cycle(paths), strict=False):
        os.link(path, many / f"{number:06}{Path(path).suffix}")
    command = [sys.executable, "-m", "headstart", "predict", str(folder / "classifier"), str(many)]
    started, peak = time.perf_counter(), 0.0
    with subprocess.Popen([*command, "-o", str(folder / f"{count}.csv"), "-q"]) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            found = re.search(r"VmHWM:\s+(\d+)", status)
            peak = max(peak, int(found[1]) / 1024 if found else 0.0)
            time.sleep(0.2)
    if process.returncode:
        sys.exit(f"headstart predict ended with {process.returncode}.")
    return peak, time.perf_counter() - started


if __name__ == "__main__":
    main()
