"""Labelled images of a dataset library, written out as photos and a table of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.console import Console
from headstart.errors import HeadstartError, counted, listed
from headstart.photos.catalog import SPLIT_NAMES

TABLE = "photos.csv"


@dataclass(frozen=True)
class Example:
    """An image file's bytes, its label ("" where it has none), and its split: train, validation, test, or ""."""

    data: bytes
    label: str
    split: str


def write_examples(source: str, examples: Iterable[Example], folder: Path, console: Console) -> None:
    """Write images into a folder, their bytes as they are, and a table of them for `read_catalog`.

    Those without a label are left out and counted.
    """
    written = unlabelled = 0
    with (
        (folder / TABLE).open("w", encoding="utf-8", newline="") as file,
        console.progress("writing photos", None) as advance,
    ):
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for example in examples:
            if not example.label:
                unlabelled += 1
                continue
            # A thousand photos a folder: larger ones are slow to list on many systems.
            path = Path(example.split or "all", f"{written // 1000:04d}", f"{written:07d}{_suffix(example.data)}")
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(example.data)
            rows.writerow([path.as_posix(), example.label, example.split])
            written += 1
            advance(1)
    left_out = f", {unlabelled:,} without a label left out" if unlabelled else ""
    console.say(f"Dataset     {source}: {counted(written, 'photo')} written out{left_out}")


def chosen_splits(source: str, found: Iterable[str], wanted: str | None) -> dict[str, str]:
    """Map the splits of a dataset that are to be read to ours: train, validation, test, or "" for undivided.

    One that the user asks for is undivided, and so is the only one of a dataset. Of several, those with the
    usual names are taken.

    Raises:
        HeadstartError: when there is none such, or several and none of them is for training.
    """
    names = list(found)
    if wanted:
        if wanted not in names:
            raise HeadstartError(f"{source}: has no split {wanted!r}; expected one of {listed(names, 20)}.")
        return {wanted: ""}
    if len(names) == 1:
        return {names[0]: ""}
    splits = {name: SPLIT_NAMES[name.casefold()] for name in names if name.casefold() in SPLIT_NAMES}
    if "train" not in splits.values():
        given = f"{listed(names, 20)}, none of them for training" if names else "none"
        raise HeadstartError(
            f"{source}: its splits are {given}; expected train, and perhaps validation and test.",
            f"Name one: {source}:{names[0] if names else 'SPLIT'}",
        )
    return splits


def feature_named(source: str, kind: str, candidates: list[str], usual: tuple[str, ...], features: Any) -> str:
    """Choose the feature that holds the image or the label: one with a usual name, or the only candidate.

    Raises:
        HeadstartError: when there is none or no telling which, listing what there is.
    """
    for name in usual:
        if name in candidates:
            return name
    if len(candidates) != 1:
        found = listed([f"{name} ({type(feature).__name__})" for name, feature in features.items()], 20)
        many = f"more than one {kind}, and none called {usual[0]}" if candidates else f"no {kind}"
        raise HeadstartError(
            f"{source}: has {many}; its features are {found}.",
            "Expected a dataset for image classification, with one image and one label an example.",
        )
    return candidates[0]


@contextmanager
def failures_told(source: str) -> Iterator[None]:
    """Turn what a dataset library raises into a user's error with its first line."""
    try:
        yield
    except HeadstartError:
        raise
    except Exception as error:  # These libraries raise dozens of types, those of what they are built on among them.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        text = str(cause).strip().partition("\n")[0]
        fix = "Check the name, the connection and the room on the disk, and try again."
        if getattr(cause, "name", None) == "tensorflow":
            fix = "This dataset cannot be prepared without TensorFlow: pip install tensorflow"
        reason = f"{type(cause).__name__}: {text}".removesuffix(": ")
        raise HeadstartError(f"{source}: cannot be read: {reason}", fix) from None


def missing_extra(source: str, extra: str) -> HeadstartError:
    """Tell which extra reads a dataset."""
    return HeadstartError(
        f"{source}: reading it needs a library that is not installed.", f"pip install 'headstart[{extra}]'"
    )


def _suffix(data: bytes) -> str:
    """Name an image file's format; "" for what is none, which the run will tell with all other damaged files."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return f".{(image.format or '').lower()}".replace(".jpeg", ".jpg")
    except Exception:  # Pillow's plugins raise nearly every built-in exception on damaged files.
        return ""
