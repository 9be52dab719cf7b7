"""Artefacts are written whole or not at all: beside their place first, then renamed into it."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, because writers choose their format by it.
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends well, that file takes the place of `path`."""
    draft = _beside(path)
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; when the block ends well, it takes the place of the folder `path`."""
    draft = _beside(path)
    draft.mkdir()
    try:
        yield draft
        if path.exists():
            old = _beside(path)
            os.replace(path, old)
            os.replace(draft, path)
            shutil.rmtree(old)
        else:
            os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def cut_torn_line(path: Path, beginning: bytes) -> None:
    """Cut off a last line that a dying process wrote a part of, in a file that begins as ours do; others stay."""
    if path.exists():
        with path.open("rb+") as file:
            data = file.read()
            if data.startswith(beginning):
                file.truncate(data.rfind(b"\n") + 1)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all (UTF-8)."""
    with written_whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV whole or not at all, a part of its rows at a time."""
    with written_whole(path) as draft:
        table.to_csv(draft, index=False, float_format="%.6g", errors="surrogateescape", chunksize=2048)
