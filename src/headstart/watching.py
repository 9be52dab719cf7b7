"""`headstart predict --watch`: photos are classified as they arrive in a folder.

The folder is looked at again and again, which works on network drives and memory cards too. A photo has arrived when
its size and time have not changed from one look to the next.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd

from headstart.atomic import cut_torn_line
from headstart.classifier import Classifier
from headstart.console import Console
from headstart.errors import HeadstartError, counted
from headstart.photos.catalog import photo_files
from headstart.prediction import Afterwards, Counts, Printed, append_rows, check_suffix, predicted

_SUFFIXES = (".csv", ".jsonl")
_LOOK_EVERY, _NOTICED_AFTER = 1.0, 0.1
# Looking takes at most this share of the time, however many photos there are.
_LOOKING_SHARE = 0.2
_Stamp = tuple[int, int]


class Stop:
    """A wish to end, which a signal's handler may set at any moment.

    Not a `threading.Event`: a handler that interrupts its `wait` in the wrong moment waits for the lock that the
    interrupted code holds.
    """

    def __init__(self) -> None:
        self.wanted = False

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the end is wanted."""
        end = time.monotonic() + seconds
        while not self.wanted and (left := end - time.monotonic()) > 0:
            time.sleep(min(_NOTICED_AFTER, left))


def arrivals(folder: Path, stop: Stop, known: set[str], apart: Path | None) -> Iterator[list[str]]:
    """Yield the paths of photos that have arrived since the last look, until told to stop.

    Args:
        folder: is watched with all that is below it.
        stop: is waited for between two looks.
        known: paths that are not new; what is yielded is added.
        apart: a folder whose photos do not count.
    """
    growing: dict[str, _Stamp] = {}
    while not stop.wanted:
        started = time.monotonic()
        here: dict[str, _Stamp] = {}
        for path in photo_files(folder, Counter()):
            if str(path) not in known and not (apart is not None and path.is_relative_to(apart)):
                try:
                    status = os.stat(path)
                except OSError:
                    continue  # gone again
                if status.st_size:  # many programs make the file first and fill it later
                    here[str(path)] = (status.st_size, status.st_mtime_ns)
        arrived = [path for path, stamp in here.items() if growing.get(path) == stamp]
        growing = {path: stamp for path, stamp in here.items() if path not in arrived}
        known.update(arrived)
        yield arrived
        taken = time.monotonic() - started
        stop.wait(max(_LOOK_EVERY, taken / _LOOKING_SHARE))


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Yield a wish to end that Ctrl-C and SIGTERM set inside the block."""
    stop = Stop()

    def end(*_: object) -> None:
        stop.wanted = True

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, end) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def watch(
    classifier: Classifier,
    folder: Path,
    output: Path | None,
    top_k: int,
    stop: Stop,
    console: Console,
    as_json: bool = False,
    afterwards: Afterwards = lambda rows: None,
    apart: Path | None = None,
) -> Counts:
    """Classify the photos in a folder, and those that arrive, until told to stop.

    Rows are appended as they come. Photos that have a row in the output already are not classified again.

    Args:
        classifier: a loaded classifier.
        folder: to watch.
        output: a CSV or JSON lines file by its suffix; None for standard output.
        top_k: how many classes to name.
        stop: ends it, after the photos that are being classified.
        console: where to say what is watched.
        as_json: JSON lines instead of CSV on standard output.
        afterwards: what is done with each part of the rows.
        apart: a folder below, into which photos are sorted.

    Raises:
        HeadstartError: when the folder is none, or the suffix of `output` another.
    """
    if not folder.is_dir():
        raise HeadstartError(f"--watch {folder}: no such folder.", "Make it first, or name another.")
    check_suffix(output, _SUFFIXES)
    known = _rows_written(output) if output is not None else set()
    write = Printed(as_json).write if output is None else partial(append_rows, output)
    counts = Counts()
    console.say(f"Watching {folder}; Ctrl-C ends it.")
    for arrived in arrivals(folder, stop, known, apart):
        for rows in predicted(classifier, arrived, top_k):
            write(rows)
            afterwards(rows)
            counts.add(rows)
    console.say(f"{counted(counts.photos, 'photo')} classified, {counts.unreadable:,} of them could not be read.")
    return counts


def _rows_written(output: Path) -> set[str]:
    """Return the paths that have a row already, after cutting off a last line that is not whole."""
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = output.suffix.lower() == ".jsonl"
    cut_torn_line(output, b'{"path": ' if lines else b"path,label,")
    if not output.exists() or output.stat().st_size == 0:
        return set()
    try:
        if lines:
            table = pd.read_json(output, lines=True, dtype=False, encoding_errors="surrogateescape")
        else:
            table = pd.read_csv(output, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
        return set(table["path"])
    except (ValueError, KeyError):
        raise HeadstartError(
            f"-o {output}: is not a table of predictions, to which rows could be added.", "Name another file."
        ) from None
