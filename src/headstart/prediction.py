"""Prediction at the command line: many photos to a file or to standard output, in bounded memory."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd

from headstart.atomic import written_whole
from headstart.classifier import Classifier, prediction_rows
from headstart.console import Console
from headstart.errors import HeadstartError, counted
from headstart.photos.catalog import natural_key, photo_files

_ROWS_AT_ONCE = 256
_SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass
class Counts:
    """How many photos were asked for, and how many of them could not be read."""

    photos: int = 0
    unreadable: int = 0


def predict_to(
    classifier: Classifier,
    paths: Iterable[str],
    output: Path | None,
    top_k: int,
    console: Console,
    as_json: bool = False,
) -> Counts:
    """Classify photos and write a row for each (see `Classifier.predict`), in order.

    Args:
        classifier: a loaded classifier.
        paths: of photos; may be endless.
        output: a CSV, JSON lines or Parquet file by its suffix; None for standard output.
        top_k: how many classes to name.
        console: shows progress.
        as_json: JSON lines instead of CSV on standard output.

    Raises:
        HeadstartError: when the suffix of `output` is another.
    """
    if output is not None and output.suffix.lower() not in _SUFFIXES:
        raise HeadstartError(
            f"-o {output}: unknown suffix; expected one of {', '.join(_SUFFIXES)}.", "Name the file accordingly."
        )
    counts = Counts()
    # The number is known only when the paths are listed already; a list on standard input is not waited for.
    total = len(paths) if isinstance(paths, list) else None
    with _writer(output, as_json) as write, console.progress("photos", total) as advance:
        predictions = classifier.stream(paths)
        while rows := list(islice(predictions, _ROWS_AT_ONCE)):
            write(prediction_rows(rows, classifier.class_names, top_k))
            counts.photos += len(rows)
            counts.unreadable += sum(1 for row in rows if row.error)
            advance(len(rows))
    if counts.unreadable:
        console.warn(f"{counted(counts.unreadable, 'photo')} of {counts.photos:,} could not be read")
    return counts


@contextmanager
def _writer(output: Path | None, as_json: bool) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield a function that appends a table to the output, which appears whole at the end."""
    if output is None:
        first = True

        def write(table: pd.DataFrame) -> None:
            nonlocal first
            sys.stdout.write(_json_lines(table) if as_json else _csv(table, first))
            sys.stdout.flush()
            first = False

        yield write
        return
    with written_whole(output) as draft:
        if output.suffix.lower() == ".parquet":
            with _parquet(draft) as append:
                yield append
        else:
            lines = output.suffix.lower() == ".jsonl"
            with draft.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                yield lambda table: _append(file.write, table, lines, first=file.tell() == 0)


def _append(write: Callable[[str], int], table: pd.DataFrame, lines: bool, first: bool) -> None:
    write(_json_lines(table) if lines else _csv(table, first))


def _csv(table: pd.DataFrame, header: bool) -> str:
    return table.to_csv(index=False, header=header, float_format="%.6g", lineterminator="\n")


def _json_lines(table: pd.DataFrame) -> str:
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
        writer.write_table(pyarrow.Table.from_pandas(table, schema, preserve_index=False))

    try:
        yield append
    finally:
        if writer is not None:
            writer.close()


def expand_paths(argument: str) -> Iterator[str]:
    """Yield the photos that one command-line argument names: a file as given, a folder's photos, or matches.

    Raises:
        HeadstartError: when it names nothing.
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
    if not any_found:
        what = "holds no photos" if os.path.isdir(argument) else "no such file or folder, and nothing matches it"
        raise HeadstartError(f"{argument}: {what}.", "Give photos, folders of photos, or patterns like '*.jpg'.")
