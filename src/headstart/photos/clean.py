"""A clean copy of photos, without what an audit leaves out; the user's own files are never touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

import pandas as pd

from headstart.atomic import folder_written_whole, write_table
from headstart.console import Console
from headstart.errors import HeadstartError, listed
from headstart.photos.catalog import Catalog
from headstart.photos.findings import left_out


def check_target(target: Path, catalog: Catalog | None = None) -> None:
    """Refuse a place for a clean copy that holds something, or that lies among the photos themselves.

    Raises:
        HeadstartError: with the reason.
    """
    is_table = target.suffix.lower() == ".csv"
    if target.is_dir() and not is_table:
        if names := sorted(os.listdir(target)):
            raise HeadstartError(f"--fix {target}: holds {listed(names, 3)}; expected a new folder.", "Name another.")
    elif target.exists() or target.is_symlink():
        raise HeadstartError(f"--fix {target}: exists already; expected a new folder or .csv file.", "Name another.")
    # A table's folder may well hold its clean copy; in a folder of classes that would be one more class.
    if catalog and catalog.class_depth is not None and not is_table and target.resolve().is_relative_to(catalog.root):
        raise HeadstartError(f"--fix {target}: lies among the photos, in {catalog.root}.", "Name a folder beside them.")


def write_clean(catalog: Catalog, problems: pd.DataFrame, target: Path, console: Console) -> int:
    """Copy the photos that an audit has nothing grave against, or write a table of them.

    Args:
        catalog: what was audited.
        problems: what `audit` returned for it.
        target: a new folder; or a `.csv` file, with the columns path (relative to the file), label and split.
        console: shows progress.

    Returns:
        The number of photos in the copy.
    """
    check_target(target, catalog)
    photos = catalog.photos[~catalog.photos["path"].isin(left_out(problems))]
    if photos.empty:
        raise HeadstartError(f"--fix {target}: no photo is left.", "See problems.csv.")
    if target.suffix.lower() == ".csv":
        write_table(target, _table(catalog.root, photos, target))
        return len(photos)
    places = photos["path"].tolist() if catalog.class_depth is not None else _places(photos, target)
    try:
        with folder_written_whole(target) as draft, console.progress("copying", len(places)) as advance:
            for path, place in zip(photos["path"], places, strict=True):
                (draft / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(catalog.root / path, draft / place)
                advance(1)
    except OSError as error:
        raise HeadstartError(
            f"--fix {target}: cannot be written: {error.strerror or error}.", "Choose another place, or make room."
        ) from None
    return len(places)


def _table(root: Path, photos: pd.DataFrame, target: Path) -> pd.DataFrame:
    folder = target.parent.resolve()
    paths = [Path(os.path.relpath(root / path, folder)).as_posix() for path in photos["path"]]
    table = pd.DataFrame({"path": paths, "label": photos["label"].to_numpy()})
    if (photos["split"] != "").any():
        table["split"] = photos["split"].to_numpy()
    return table


def _places(photos: pd.DataFrame, target: Path) -> list[str]:
    """Place the photos of a table, which may lie anywhere, in class folders."""
    unfit = sorted({label for label in photos["label"] if label in (".", "..") or "/" in label or "\0" in label})
    if unfit:
        raise HeadstartError(
            f"--fix {target}: class names that cannot be folders: {listed(unfit)}.", "Give a TARGET that ends in .csv."
        )
    taken: set[str] = set()
    places = []
    for path, label, split in zip(photos["path"], photos["label"], photos["split"], strict=True):
        name, number = PurePosixPath(path), 1
        place = PurePosixPath(split, label, name.name)
        while str(place).casefold() in taken:
            number += 1
            place = PurePosixPath(split, label, f"{name.stem}-{number}{name.suffix}")
        taken.add(str(place).casefold())
        places.append(str(place))
    return places
