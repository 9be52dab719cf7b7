"""Classes that are too small, unbalanced or named alike, and folders that hold no photos."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from headstart.errors import counted, listed
from headstart.photos.catalog import HIDDEN, Catalog, is_hidden, passed_over
from headstart.photos.findings import EVERYTHING, NOTE, SEVERE, WARNING, Finding

FEW, VERY_FEW, TOO_FEW = 10, 5, 3
MOST_UNBALANCED, UNBALANCED = 10, 3


def class_findings(catalog: Catalog, photos: pd.DataFrame) -> Iterator[Finding]:
    """Find classes that are small, missing from a split, far from the others' size, or named like another.

    Args:
        catalog: all classes, with photos that can be read or not.
        photos: those that can be read; columns label, split and digest.
    """
    labels = photos.drop_duplicates(["label", "digest"])["label"].value_counts()
    counts = labels.reindex(catalog.class_names, fill_value=0)
    given = bool((catalog.photos["split"] != "").any())
    for name, count in counts.items():
        if count < FEW:
            too_few = count < (1 if given else TOO_FEW)
            severity = SEVERE if too_few else WARNING if count < VERY_FEW else NOTE
            end = f"; training needs at least {1 if given else TOO_FEW}" if too_few else ""
            detail = f"{counted(int(count), 'photo')} that can be read and differ{end}"
            yield Finding(str(name), "too few photos", detail, severity)
    least, most = counts.idxmin(), counts.idxmax()
    ratio = counts[most] / max(1, counts[least])
    if ratio >= UNBALANCED:
        detail = f"{counts[most]:,} photos of {most}, {counts[least]:,} of {least}"
        yield Finding(EVERYTHING, "unbalanced classes", detail, WARNING if ratio >= MOST_UNBALANCED else NOTE)
    yield from _missing_from_splits(catalog)
    yield from _named_alike(catalog.class_names)


def _missing_from_splits(catalog: Catalog) -> Iterator[Finding]:
    photos = catalog.photos
    for split in ("validation", "test"):
        present = set(photos.loc[photos["split"] == split, "label"])
        if present:
            for name in catalog.class_names:
                if name not in present:
                    yield Finding(name, "class missing from a split", f"no {split} photos")


def _named_alike(names: list[str]) -> Iterator[Finding]:
    alike: dict[str, list[str]] = {}
    for name in names:
        key = re.sub(r"[\s_\-.]+", "", unicodedata.normalize("NFKC", name).casefold())
        alike.setdefault(key or name, []).append(name)
    for group in alike.values():
        for name in group[1:]:
            yield Finding(name, "similar class names", f"differs from {group[0]!r} only by case or spacing")


def folder_findings(catalog: Catalog) -> Iterator[Finding]:
    """Find folders that are ignored, empty or without photos; nothing where the photos came from a table."""
    for told in passed_over({reason: count for reason, count in catalog.ignored.items() if reason != HIDDEN}):
        yield Finding(EVERYTHING, "ignored", told)
    depth = catalog.class_depth
    if depth is None:
        return
    known = [*catalog.photos["path"], *catalog.problems["path"]]
    holding = {path.rsplit("/", number)[0] for path in known for number in range(1, path.count("/") + 1)}
    for folder, folders, files in os.walk(catalog.root, followlinks=False):
        place = Path(folder).relative_to(catalog.root)
        for name in sorted(filter(is_hidden, folders)):
            yield Finding((place / name).as_posix(), "ignored", "a folder that programs make, not a class")
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        if len(place.parts) == depth + 1 and place.as_posix() not in holding:
            # What lies deeper belongs to this folder's row.
            inside = sum(len(names) for _, _, names in os.walk(folder))
            folders.clear()
            if inside:
                detail = f"{counted(inside, 'file')}, such as {listed(sorted(files), 1)}" if files else "only folders"
                yield Finding(place.as_posix(), "folder without photos", detail)
            else:
                yield Finding(place.as_posix(), "empty class folder", "no files in it")
