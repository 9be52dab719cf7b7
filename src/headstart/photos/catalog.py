"""The catalog: every photo with its label, from a folder, a table or a built-in dataset."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from headstart.errors import HeadstartError, counted, listed
from headstart.photos.decode import looks_like_photo
from headstart.photos.loading import ahead

# By their usual names, in lower case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
_DIGEST_BYTES = 16
HIDDEN = "hidden files and folders"
# Why something was passed over, and the same of one.
_ONE_IGNORED = {
    "folders that cannot be opened": "folder that cannot be opened",
    HIDDEN: "hidden file or folder",
    "names that are not UTF-8": "name that is not UTF-8",
    "files that are not images": "file that is not an image",
    "photos outside a class folder": "photo outside a class folder",
}


# Of a class in a split, where not all photos are used.
_LEAST_OF_A_PART = 10


@dataclass(frozen=True)
class Catalog:
    """Photos with their labels.

    `photos` has the columns path (relative to `root`, with forward slashes), label, split (train,
    validation, test, or "" where the user gave none) and digest (BLAKE2b of the file's bytes, 32 hex
    digits). `problems` has path, problem and detail. `ignored` counts what was passed over, by reason.
    `class_depth` is how many folders stand above a class's folder; None where a table gave the labels. `named` is
    where the photos are, as the user wrote it.
    """

    root: Path
    photos: pd.DataFrame
    class_names: list[str]
    problems: pd.DataFrame = field(default_factory=lambda: no_problems())
    ignored: dict[str, int] = field(default_factory=dict)
    class_depth: int | None = None
    named: str = ""

    @property
    def digest(self) -> str:
        """A fingerprint of all paths, labels, splits and contents: equal catalogs have equal digests."""
        fingerprint = hashlib.sha256()
        table = self.photos[["path", "label", "split", "digest"]].sort_values("path")
        for row in table.itertuples(index=False, name=None):
            fingerprint.update("\t".join(row).encode() + b"\n")
        return fingerprint.hexdigest()

    def told(self) -> str:
        """Say in a line how many photos there are, in how many classes, and where."""
        counts = self.photos["label"].value_counts()
        least, most = counts.min(), counts.max()
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        return (
            f"Photos      {counted(len(self.photos), 'photo')} in {counted(len(self.class_names), 'class')}, "
            f"{each} a class ({self.named or self.root})"
        )

    def without(self, problems: pd.DataFrame) -> Catalog:
        """Return the catalog without the photos named in `problems`, and those added to its problems."""
        kept = self.photos[~self.photos["path"].isin(set(problems["path"]))].reset_index(drop=True)
        every = pd.concat([self.problems, problems], ignore_index=True)
        return replace(self, photos=kept, problems=every)

    def part(self, count: int) -> Catalog:
        """Return about `count` of the photos: an equal share of each class and split, at least ten, by their bytes."""
        photos = self.photos
        groups = photos.sort_values("digest", kind="stable").groupby(["label", "split"])["digest"]
        wanted = (groups.transform("size") * (count / len(photos))).clip(lower=_LEAST_OF_A_PART)
        kept = (groups.cumcount() < wanted).reindex(photos.index)
        return replace(self, photos=photos[kept].reset_index(drop=True))


def no_problems() -> pd.DataFrame:
    """Return an empty table of problems: path, problem, detail."""
    return pd.DataFrame({"path": [], "problem": [], "detail": []}, dtype=str)


def problem_table(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    """Make a table of problems from (path, problem, detail) rows."""
    return pd.DataFrame(rows, columns=["path", "problem", "detail"], dtype=str)


def natural_key(name: str) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """Sort key under which `2` comes before `10`, whatever the case."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts), name


def read_catalog(source: str | Path, least_classes: int = 2) -> Catalog:
    """Read a folder of photos, or a table of paths and labels.

    A folder has a folder per class, with photos at any depth below it, or first `train`, `val` and `test`
    folders (by any of their usual names, in any case) with a folder per class in each. A CSV, TSV or
    Parquet table has the columns path and label, optionally split; its paths are relative to the table.

    Raises:
        HeadstartError: when there is nothing to learn from: no such folder, no photos, fewer than `least_classes`
            classes, missing columns, or paths that do not exist.
    """
    path = photos_place(source)
    if path.is_dir():
        catalog = _read_folder(path.resolve(), str(source), least_classes)
    else:
        catalog = _read_table(path, least_classes)
    return _with_digests(replace(catalog, named=str(source)))


def photos_place(source: str | Path) -> Path:
    """Return the path of a folder or table of photos.

    Raises:
        HeadstartError: when it is neither.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise HeadstartError(
            f"{source}: no such folder or file; expected a folder of photos with a folder per class, or a CSV file.",
            "Check the path, or name a dataset: digits, stanford-dogs, tfds:NAME or hf:NAME.",
        )
    if not path.is_dir() and path.suffix.lower() not in _TABLE_SUFFIXES:
        raise HeadstartError(
            f"{source}: is a file; expected a folder of photos, or a table ending in {', '.join(_TABLE_SUFFIXES)}.",
            "Give the folder that holds the class folders.",
        )
    return path


def photo_files(folder: Path, ignored: Counter[str]) -> Iterator[Path]:
    """Yield the photos below a folder in natural order, counting in `ignored` what is not one.

    Hidden files and folders (`.ipynb_checkpoints`, `._*`) and files that are not images by content or
    suffix are passed over; links to folders are followed, but no folder is visited twice.
    """
    visited = {os.path.realpath(folder)}
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: natural_key(entry.name))
        except OSError:
            ignored["folders that cannot be opened"] += 1
            continue
        folders = []
        for entry in entries:
            if is_hidden(entry.name):
                ignored[HIDDEN] += 1
            elif not _is_utf8(entry.name):
                ignored["names that are not UTF-8"] += 1
            elif os.path.isdir(entry.path):  # entry.is_dir() raises on a link to itself
                real = os.path.realpath(entry.path)
                if real not in visited:
                    visited.add(real)
                    folders.append(Path(entry.path))
            elif _may_be_read(entry.path) and is_photo_file(Path(entry.path)):
                yield Path(entry.path)
            else:
                ignored["files that are not images"] += 1
        pending.extend(reversed(folders))


def is_photo_file(path: Path) -> bool:
    """Say whether a file is an image by its first bytes, or claims to be one by its suffix."""
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError:
        head = b""
    return looks_like_photo(path, head)


def _may_be_read(path: str) -> bool:
    """Say no to pipes and devices, which would be waited for; a broken link is a problem to be named."""
    return os.path.isfile(path) or not os.path.exists(path)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_hidden(name: str) -> bool:
    """Say whether a file or folder is one that programs and systems make for themselves."""
    return name.startswith(".") or name.casefold() in ("thumbs.db", "desktop.ini", "__macosx")


def _read_folder(root: Path, source: str, least_classes: int) -> Catalog:
    ignored: Counter[str] = Counter()
    paths = [file.relative_to(root).as_posix() for file in photo_files(root, ignored)]
    if not paths:
        why = f"ignored {', '.join(passed_over(ignored))}" if ignored else "it is empty"
        raise HeadstartError(
            f"{source}: holds no photos ({why}); expected a folder per "
            "class with JPEG, PNG, WebP, BMP, GIF, TIFF, HEIC or AVIF files.",
            "Put the photos of each class in a folder of its own.",
        )
    top_folders = {path.split("/", 1)[0] for path in paths if "/" in path}
    split_layout = bool(top_folders) and all(name.casefold() in SPLIT_NAMES for name in top_folders)
    split_layout &= any(SPLIT_NAMES.get(name.casefold()) == "train" for name in top_folders)
    class_depth = 1 if split_layout else 0

    inside = [path for path in paths if path.count("/") > class_depth]
    if outside := len(paths) - len(inside):
        ignored["photos outside a class folder"] += outside
    labels = [path.split("/", class_depth + 1)[class_depth] for path in inside]
    splits = [SPLIT_NAMES[path.split("/", 1)[0].casefold()] if split_layout else "" for path in inside]
    table = pd.DataFrame({"path": inside, "label": labels, "split": splits}, dtype=str)
    catalog = Catalog(root, table, [], ignored=dict(ignored), class_depth=class_depth)
    return _checked(catalog, source, least_classes)


def _read_table(path: Path, least_classes: int) -> Catalog:
    table = load_table(path)
    columns = {str(column).strip().casefold(): column for column in table.columns}
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise HeadstartError(
            f"{path}: has no column {' and no column '.join(missing)} (found: {listed(list(map(str, columns)), 10)}).",
            "The first line must name the columns path and label, and optionally split.",
        )
    wanted = [name for name in ("path", "label", "split") if name in columns]
    table = table[[columns[name] for name in wanted]].set_axis(wanted, axis=1).astype(object)
    table = table.where(table.notna(), "").astype(str)
    table = table.apply(lambda column: column.str.strip())
    if "split" not in table:
        table["split"] = ""
    table = table[(table != "").any(axis=1)]
    _check_cells(table, path)
    table["split"] = table["split"].str.casefold().map(lambda name: SPLIT_NAMES.get(name, ""))
    table["path"] = table["path"].str.replace("\\", "/", regex=False) if os.name == "nt" else table["path"]
    table["path"] = table["path"].map(posixpath.normpath)
    root = path.resolve().parent
    absent = [name for name in table["path"] if not (root / name).is_file()]
    if absent:
        raise HeadstartError(
            f"{path}: {counted(len(absent), 'path')} in it not found: {listed(absent)}.",
            f"Paths are read relative to the table's own folder, {path.parent}.",
        )
    table = table.drop_duplicates(ignore_index=True)
    twice = sorted(set(table.loc[table["path"].duplicated(), "path"]))
    if twice:
        raise HeadstartError(
            f"{path}: {counted(len(twice), 'photo')} with more than one label or split: {listed(twice)}.",
            "Give each photo one row.",
        )
    return _checked(Catalog(root, table, []), str(path), least_classes)


def load_table(path: Path) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file.

    Raises:
        HeadstartError: when it is none.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        # Every cell stays text: a class may well be called 007 or NA.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
                skip_blank_lines=False,
            )
    except (ValueError, OSError, ImportError, pd.errors.ParserWarning) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HeadstartError(
            f"{path}: cannot be read as a table: {reason}.",
            "Expected a UTF-8 file whose first line names the columns path and label.",
        ) from None


def _check_cells(table: pd.DataFrame, path: Path) -> None:
    empty = table.index[(table["path"] == "") | (table["label"] == "")]
    if len(empty):
        lines = listed([str(index + 2) for index in empty])
        raise HeadstartError(f"{path}: no path or no label in line {lines}.", "Fill them in, or delete these lines.")
    wrong = sorted({name for name in table["split"] if name and name.casefold() not in SPLIT_NAMES})
    if wrong:
        raise HeadstartError(
            f"{path}: unknown split {listed([repr(name) for name in wrong])}.",
            "Use train, validation and test, or leave the column out.",
        )
    if (table["split"] == "").any() and (table["split"] != "").any():
        count = int((table["split"] == "").sum())
        raise HeadstartError(
            f"{path}: {counted(count, 'line')} without a split, while others have one.",
            "Fill the column for every photo, or leave it out.",
        )


def _checked(catalog: Catalog, source: str, least_classes: int) -> Catalog:
    """Fill in the class names, and refuse what no classifier can be made of."""
    photos = catalog.photos
    class_names = sorted(set(photos["label"]), key=natural_key)
    if len(class_names) < least_classes:
        found = f"only one class, {class_names[0]!r}" if class_names else "no class folders"
        deeper = _folder_that_holds_classes(catalog, source)
        raise HeadstartError(
            f"{source}: has {found}; expected at least two, each a folder with photos in it.",
            f"Did you mean {deeper}?" if deeper else "Put the photos of each class in a folder of its own.",
        )
    if (photos["split"] != "").any():
        trained = set(photos.loc[photos["split"] == "train", "label"])
        untrained = [name for name in class_names if name not in trained]
        if untrained:
            raise HeadstartError(
                f"{source}: no training photos for {listed([repr(name) for name in untrained])}, "
                "which are in another split.",
                "Add training photos for these classes, or take them out everywhere.",
            )
    return replace(catalog, class_names=class_names)


def _folder_that_holds_classes(catalog: Catalog, source: str) -> str:
    """Name the folder below a lone top folder when that one holds several: archives often unpack so."""
    parts = [PurePosixPath(path).parts for path in catalog.photos["path"]]
    if parts and len({part[0] for part in parts}) == 1 and len({part[1] for part in parts if len(part) > 2}) > 1:
        return str(Path(source) / parts[0][0])
    return ""


def passed_over(ignored: Mapping[str, int]) -> list[str]:
    """Say of each reason in `Catalog.ignored` how many it was: `1 file that is not an image`."""
    return [
        f"{count:,} {_ONE_IGNORED.get(reason, reason) if count == 1 else reason}"
        for reason, count in sorted(ignored.items())
    ]


def _with_digests(catalog: Catalog) -> Catalog:
    """Read every file once for its digest; files that cannot be read are left out and named."""
    digests = list(ahead(catalog.photos["path"], lambda path: file_digest(catalog.root / path)))
    photos = catalog.photos.assign(digest=digests)
    unreadable = photos[photos["digest"] == ""]
    problems = problem_table([(path, "unreadable", "the file cannot be opened") for path in unreadable["path"]])
    return replace(catalog, photos=photos).without(problems)


def file_digest(path: Path) -> str:
    """Return the BLAKE2b digest of a file's bytes as 32 hex digits, or "" when it cannot be opened."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()
