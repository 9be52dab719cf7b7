"""Prediction at the command line: many photos to a file or to standard output, in bounded memory.

Rows for a file are kept in a ledger beside it, a line of JSON each, until all are there: a command that was interrupted
goes on where the ledger ends, and the file appears whole.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from filelock import FileLock, Timeout

from headstart.atomic import written_whole
from headstart.classifier import Classifier, Prediction, prediction_rows, prediction_types
from headstart.console import Console
from headstart.errors import HeadstartError, counted
from headstart.photos.catalog import natural_key, photo_files

_ROWS_AT_ONCE = 256
_NAMES_AT_ONCE = 1 << 16  # bytes
_SUFFIXES = (".csv", ".jsonl", ".parquet")

# What is done with rows once they are written down: moving photos, writing sidecars. Called again with the rows of an
# interrupted command, for which it may have been done already.
Afterwards = Callable[[pd.DataFrame], None]


@dataclass
class Counts:
    """How many photos were asked for, how many of them could not be read, and how many labels are accepted.

    `accepted` is None where the classifier does not say; `place` tells where the rows are, if in a file.
    """

    photos: int = 0
    unreadable: int = 0
    accepted: int | None = None
    place: str = field(default="", compare=False)

    def add(self, rows: pd.DataFrame) -> None:
        """Count the rows of a table."""
        self.photos += len(rows)
        self.unreadable += int((rows["error"] != "").sum())
        if rows["accepted"].notna().any():
            self.accepted = (self.accepted or 0) + int(rows["accepted"].sum())

    def told(self) -> str:
        """Say them on a line."""
        place = f"; {self.place}" if self.place else ""
        if not self.photos:
            return f"No photos to classify{place}"
        accepted = "" if self.accepted is None else f"{self.accepted:,} accepted, "
        return f"{counted(self.photos, 'photo')}: {accepted}{self.unreadable:,} could not be read{place}"


def predict_to(
    classifier: Classifier,
    paths: Iterable[str],
    output: Path | None,
    top_k: int,
    console: Console,
    as_json: bool = False,
    afterwards: Afterwards = lambda rows: None,
    none_is_well: Callable[[], bool] = lambda: False,
) -> Counts:
    """Classify photos and write a row for each (see `Classifier.predict`), in order.

    Args:
        classifier: a loaded classifier.
        paths: of photos; may be endless.
        output: a CSV, JSON lines or Parquet file by its suffix; None for standard output.
        top_k: how many classes to name.
        console: shows progress.
        as_json: JSON lines instead of CSV on standard output.
        afterwards: what is done with each part of the rows.
        none_is_well: is asked when no photo could be read: whether an output that is there stays as it is then.

    Raises:
        HeadstartError: when the suffix of `output` is another, or another process writes to it.
    """
    check_suffix(output, _SUFFIXES)
    counts = Counts()
    # The number is known only when the paths are listed already; a list on standard input is not waited for.
    total = len(paths) if isinstance(paths, list) else None
    with _destination(output, classifier, top_k, as_json) as rows_to, console.progress("photos", total) as advance:
        done: Counter[str] = Counter()
        for rows in rows_to.written():
            afterwards(rows)
            done.update(rows["path"])
            counts.add(rows)
            advance(len(rows))
        if done:
            told = counted(done.total(), "photo")
            console.say(
                f"Going on where an interrupted command stopped: {told} done already (remove {rows_to} to begin anew)"
            )
        others = _others(paths, done)
        for rows in predicted(classifier, others if total is None else list(others), top_k, advance):
            rows_to.write(rows)
            afterwards(rows)
            counts.add(rows)
        none_read = counts.photos == counts.unreadable
        if none_read and none_is_well() and output is not None and output.exists():
            counts.place = rows_to.drop()
        else:
            counts.place = rows_to.finish(prediction_rows([], classifier.class_names, top_k))
    if counts.unreadable:
        console.warn(f"{counted(counts.unreadable, 'photo')} of {counts.photos:,} could not be read")
    return counts


def predicted(
    classifier: Classifier, paths: Iterable[str], top_k: int, advance: Callable[[int], None] = lambda n: None
) -> Iterator[pd.DataFrame]:
    """Yield the rows of photos, a few hundred at a time; `advance` is called with 1 for each as soon as it is known."""

    def shown() -> Iterator[Prediction]:
        for prediction in classifier.stream(paths):
            advance(1)
            yield prediction

    predictions = shown()
    while rows := list(islice(predictions, _ROWS_AT_ONCE)):
        yield prediction_rows(rows, classifier.class_names, top_k)


def check_suffix(output: Path | None, expected: tuple[str, ...]) -> None:
    """Refuse to write a format that is not there.

    Raises:
        HeadstartError: when the suffix is another than those expected.
    """
    if output is not None and output.suffix.lower() not in expected:
        raise HeadstartError(
            f"-o {output}: unknown suffix; expected one of {', '.join(expected)}.", "Name the file accordingly."
        )


def _others(paths: Iterable[str], done: Counter[str]) -> Iterator[str]:
    """Yield the paths that are not done, each as often as it is left to do."""
    for path in paths:
        if done[path]:
            done[path] -= 1
        else:
            yield path


class Printed:
    """Standard output."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._first = True

    def written(self) -> Iterator[pd.DataFrame]:
        """Yield nothing: what was printed is gone."""
        yield from ()

    def write(self, rows: pd.DataFrame) -> None:
        """Print rows; the first ones with the names of the columns."""
        text = json_lines(rows) if self._as_json else csv_lines(rows, self._first)
        # A name that is no text is printed with the bytes that it has.
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "surrogateescape"))
        sys.stdout.flush()
        self._first = False

    def finish(self, none: pd.DataFrame) -> str:
        """Do nothing: all is printed."""
        return ""

    def drop(self) -> str:
        """Do nothing: what was printed is gone."""
        return ""


class _Ledger:
    """The rows of an output that is not finished, in the order in which they were made."""

    def __init__(self, path: Path, output: Path) -> None:
        self._path, self._output = path, output

    def __str__(self) -> str:
        return str(self._path)

    def written(self) -> Iterator[pd.DataFrame]:
        """Yield the rows that are there; what a dying process wrote of another is cut off."""
        if not self._path.exists():
            return
        with self._path.open("rb+") as file:
            while lines := list(islice(file, _ROWS_AT_ONCE)):
                if not lines[-1].endswith(b"\n"):
                    file.truncate(file.tell() - len(lines.pop()))
                if lines:
                    yield _table(lines)

    def write(self, rows: pd.DataFrame) -> None:
        append_rows(self._path, rows)

    def finish(self, none: pd.DataFrame) -> str:
        """Write the output, whole, remove the ledger, and say so; a table without rows where there are none."""
        place = f"rows in {self._output}{', in the place of an earlier file' if self._output.exists() else ''}"
        with written_whole(self._output) as draft, _appending(draft, self._output.suffix.lower()) as append:
            for rows in self.written() if self._path.exists() else (none,):
                append(rows)
        self.drop()
        return place

    def drop(self) -> str:
        """Remove the ledger, leave the output, and say so."""
        self._path.unlink(missing_ok=True)
        return f"{self._output} stays as it was"


@contextmanager
def _destination(output: Path | None, classifier: Classifier, top_k: int, as_json: bool) -> Iterator[Printed | _Ledger]:
    if output is None:
        yield Printed(as_json)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    # Another classifier, or another number of classes to name, has a ledger of its own.
    digest = hashlib.sha256(json.dumps([classifier.class_names, top_k]).encode())
    digest.update(classifier.selftest()[1].tobytes())
    place = output.with_name(f".{output.name}.{digest.hexdigest()[:12]}")
    lock = FileLock(f"{place}.lock", timeout=0)
    try:
        with lock:
            yield _Ledger(Path(f"{place}.jsonl"), output)
        Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        raise HeadstartError(f"-o {output}: another process is writing it.", "Wait for it to end.") from None


def _table(lines: Iterable[bytes]) -> pd.DataFrame:
    """Read rows back from lines of JSON, of the types that `prediction_rows` gives."""
    records = [json.loads(line.decode("utf-8", "surrogateescape")) for line in lines]
    return prediction_types(pd.DataFrame(records, dtype=object))


@contextmanager
def _appending(draft: Path, suffix: str) -> Iterator[Callable[[pd.DataFrame], Any]]:
    """Yield a function that appends a table to a file of the format that its suffix names."""
    if suffix == ".parquet":
        with _parquet(draft) as append:
            yield append
        return
    with draft.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield lambda rows: file.write(json_lines(rows) if suffix == ".jsonl" else csv_lines(rows, file.tell() == 0))


def append_rows(path: Path, rows: pd.DataFrame) -> None:
    """Append rows to a CSV or JSON lines file by its suffix, on the disk when this returns."""
    with path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
        lines = path.suffix.lower() == ".jsonl"
        file.write(json_lines(rows) if lines else csv_lines(rows, file.tell() == 0))
        file.flush()
        os.fsync(file.fileno())


def csv_lines(table: pd.DataFrame, header: bool) -> str:
    """Write rows as CSV."""
    return table.to_csv(index=False, header=header, float_format="%.6g", lineterminator="\n")


def json_lines(table: pd.DataFrame) -> str:
    """Write rows as JSON, a line each; what is missing is null."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextmanager
def _parquet(draft: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    writer = None
    schema = None

    def append(table: pd.DataFrame) -> None:
        nonlocal writer, schema
        if schema is None:
            kinds = {"float64": pyarrow.float64(), "boolean": pyarrow.bool_()}
            schema = pyarrow.schema(
                [(name, kinds.get(str(kind), pyarrow.string())) for name, kind in table.dtypes.items()]
            )
            writer = ParquetWriter(draft, schema)
        paths = [path.encode("utf-8", "backslashreplace").decode() for path in table["path"]]  # it holds text alone
        table = table.assign(path=paths)
        writer.write_table(pyarrow.Table.from_pandas(table, schema, preserve_index=False))

    try:
        yield append
    finally:
        if writer is not None:
            writer.close()


def listed_paths(
    arguments: Iterable[str], stdin: TextIO, dealt_with: Callable[[str], bool] = lambda argument: False
) -> Iterator[str]:
    """Yield the photos that arguments name; `-` stands for those that standard input names.

    Args:
        arguments: see `expand_paths`.
        stdin: read as it comes, when its turn is there.
        dealt_with: says of an argument whether an earlier command moved photos that it named away.

    Raises:
        HeadstartError: when an argument names nothing, and is not dealt with.
    """
    for argument in arguments:
        yield from names_in(stdin) if argument == "-" else expand_paths(argument, dealt_with(argument))


def names_in(stream: TextIO) -> Iterator[str]:
    """Yield the names that a stream holds: a line each, or each ended by a NUL as `find -print0` does.

    NULs it is where what comes first has one; a name may hold line breaks then. Bytes that are no text stay in a name.
    """
    rest, separator = b"", b""
    while chunk := stream.buffer.read1(_NAMES_AT_ONCE):  # type: ignore[attr-defined]
        rest += chunk
        if not separator:
            separator = next((mark for mark in (b"\0", b"\n") if mark in rest), b"")
        if separator:
            *names, rest = rest.split(separator)
            yield from _names(names, separator, stream.encoding)
    yield from _names([rest], separator, stream.encoding)


def _names(names: Iterable[bytes], separator: bytes, encoding: str) -> Iterator[str]:
    for name in names:
        if separator != b"\0":
            name = name.rstrip(b"\r\n") if name.strip() else b""
        if name:
            yield name.decode(encoding, "surrogateescape")


def expand_paths(argument: str, may_be_none: bool = False) -> Iterator[str]:
    """Yield the photos that one command-line argument names: a file as given, a folder's photos, or matches.

    Raises:
        HeadstartError: when it names nothing, unless it may.
    """
    if os.path.isdir(argument):
        found: Iterable[str] = (str(file) for file in photo_files(Path(argument), Counter()))
    elif os.path.lexists(argument):
        found = [argument]
    else:
        found = sorted(glob.glob(argument, recursive=True), key=natural_key)
    any_found = False
    for name in found:
        any_found = True
        yield name
    if not any_found and not may_be_none:
        what = "holds no photos" if os.path.isdir(argument) else "no such file or folder, and nothing matches it"
        raise HeadstartError(f"{argument}: {what}.", "Give photos, folders of photos, or patterns like '*.jpg'.")
