"""The peak memory of `headstart train` on a small and on a large folder: it should not grow with the photos.

Both folders are made of the given photos, each a copy with a few bytes of its own at the end (decoders stop before
them), so that no two are the same photo to Headstart. Each run is a process of its own with a new cache; its peak is
the kernel's (`VmHWM` in `/proc/PID/status`, so Linux only), read until it ends. That counts pages of mapped files,
such as libraries and the store, which the kernel can take back; the peak of what it cannot (`RssAnon`) is sampled.

python benchmarks/memory.py PHOTOS --small 1000 --large 50000
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from headstart.photos.catalog import read_catalog
from measuring import alternate, note, report, spread, table

POLL_SECONDS = 0.1
MIB = 1024  # KiB


@dataclass
class Usage:
    """What one run took: memory in MiB, and the peak up to each line that the run said."""

    seconds: float = 0.0
    peak: float = 0.0
    anonymous: float = 0.0
    peak_by_line: dict[str, float] = field(default_factory=dict)


def main() -> None:
    options = _options()
    if not Path("/proc/self/status").exists():
        sys.exit("memory.py reads /proc, which only Linux has.")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folders = {count: Path(name) / f"photos-{count}" for count in (options.small, options.large)}
        for count, folder in folders.items():
            note(f"copying {count:,} photos")
            _copy_photos(options.photos, folder, count)
        runs = {f"{count:,} photos": partial(_train, folder, options) for count, folder in folders.items()}
        usages = alternate(runs, options.repeats)

    small, large = usages.values()
    rows = [[name, *_numbers(repeats)] for name, repeats in usages.items()]
    growth = [over.peak - under.peak for over, under in zip(large, small, strict=True)]
    anonymous = [over.anonymous - under.anonymous for over, under in zip(large, small, strict=True)]
    rows.append(["difference", spread(growth, ".0f"), spread(anonymous, ".0f"), ""])
    # The last round's: where in a run the peak grows.
    ours, theirs = small[-1].peak_by_line, large[-1].peak_by_line
    lines = [[line, f"{peak:.0f}", f"{theirs[line]:.0f}"] for line, peak in ours.items() if line in theirs]
    facts = (
        f"Lite0 at {options.image_size} pixels, {options.num_views} views, {options.epochs} epochs. "
        f"Median (least-greatest) of {options.repeats} rounds."
    )
    header = ["", "peak, MiB", "peak of anonymous pages, MiB", "seconds"]
    by_line = table(["peak up to this line of the run, MiB", *usages], lines)
    report("Memory of `headstart train`", [facts, table(header, rows), by_line])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, help="a folder with a folder per class")
    parser.add_argument("--small", type=int, default=1000, help="photos in the small folder (1000)")
    parser.add_argument("--large", type=int, default=50000, help="photos in the large folder (50000)")
    parser.add_argument("--image-size", type=int, default=64, help="pixels (64)")
    parser.add_argument("--num-views", type=int, default=2, help="views of each training photo (2)")
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning (2)")
    parser.add_argument("--repeats", type=int, default=1, help="rounds (1)")
    parser.add_argument("--folder", type=Path, help="where the folders are made for the time being (the system's own)")
    return parser.parse_args()


def _copy_photos(source: Path, folder: Path, count: int) -> None:
    """Copy photos round and round, class by class in turn, until there are `count`, all of different bytes."""
    catalog = read_catalog(source)
    by_class = [itertools.cycle(list(table["path"])) for _, table in catalog.photos.groupby("label")]
    for label in catalog.class_names:
        (folder / label).mkdir(parents=True)
    turns = zip(itertools.cycle(zip(sorted(catalog.class_names), by_class, strict=True)), range(count), strict=False)
    for (label, paths), number in turns:
        path = catalog.root / next(paths)
        copy = folder / label / f"{number:06}{path.suffix}"
        copy.write_bytes(path.read_bytes() + f"copy {number:06}".encode())


def _train(folder: Path, options: argparse.Namespace, number: int) -> Usage:
    """Run `headstart train` and watch its memory."""
    program = Path(sys.executable).with_name("headstart")
    choices = [f"--{name}={getattr(options, name.replace('-', '_'))}" for name in ("image-size", "num-views", "epochs")]
    usage = Usage()
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        places = ["-o", str(Path(name) / "run"), "--cache", str(Path(name) / "cache")]
        started = time.perf_counter()
        arguments = [str(program), "train", str(folder), *places, *choices]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            watcher = threading.Thread(target=_watch, args=(process, usage))
            watcher.start()
            for line in process.stdout or ():
                _read(process.pid, usage)
                usage.peak_by_line[_name(line)] = usage.peak
            code = process.wait()
            watcher.join()
        usage.seconds = time.perf_counter() - started
    if code:
        sys.exit(f"headstart train ended with {code}.")
    return usage


def _watch(process: subprocess.Popen[str], usage: Usage) -> None:
    """Read a process's memory again and again until it has ended."""
    while process.poll() is None:
        _read(process.pid, usage)
        time.sleep(POLL_SECONDS)


def _read(pid: int, usage: Usage) -> None:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return
    values = dict(line.split(":", 1) for line in text.splitlines())
    # A process that has ended, and was not waited for yet, has no memory to report.
    if "VmHWM" in values:
        usage.peak = max(usage.peak, int(values["VmHWM"].split()[0]) / MIB)
        usage.anonymous = max(usage.anonymous, int(values["RssAnon"].split()[0]) / MIB)


def _name(line: str) -> str:
    """Return what the lines of both runs have in common: the heading, or the first two words below one."""
    words = re.sub(r"^ *[0-9,]+ ", " ", line).split(":", 1)[0].split()
    return " ".join(words[: 2 if line.startswith(" ") else 1])


def _numbers(repeats: list[Usage]) -> list[str]:
    memory = ([usage.peak for usage in repeats], [usage.anonymous for usage in repeats])
    return [*(spread(values, ".0f") for values in memory), spread([usage.seconds for usage in repeats])]


if __name__ == "__main__":
    main()
