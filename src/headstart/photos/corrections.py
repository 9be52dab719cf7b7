"""Corrected labels: a table of paths and labels over those that the photos have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from headstart.errors import HeadstartError, counted, listed
from headstart.photos.catalog import Catalog, load_table, natural_key


def corrected(catalog: Catalog, path: str | Path) -> tuple[Catalog, int]:
    """Return the catalog with the labels of a table, and how many changed.

    Args:
        catalog: the photos as they are labelled.
        path: a CSV, TSV or Parquet file with the columns path (as in the catalog) and label; rows without a label are
            passed over, so that `label_issues.csv` will do once some labels are filled in.

    Raises:
        HeadstartError: when the table cannot be read, or names photos or classes that are not there.
    """
    table = read_corrections(path)
    _check(catalog, table, path)
    wanted = dict(zip(table["path"], table["label"], strict=True))
    labels = [wanted.get(name, label) for name, label in catalog.photos[["path", "label"]].to_numpy(str)]
    changed = int((catalog.photos["label"] != pd.Series(labels, index=catalog.photos.index)).sum())
    class_names = sorted(set(labels), key=natural_key)
    return replace(catalog, photos=catalog.photos.assign(label=labels), class_names=class_names), changed


def read_corrections(path: str | Path) -> pd.DataFrame:
    """Read a table of corrected labels: the columns path and label, where a label was filled in.

    Raises:
        HeadstartError: when there is no such file, or it is no table with these columns.
    """
    source = Path(path).expanduser()
    if not source.is_file():
        raise HeadstartError(
            f"--labels {path}: no such file; expected a table with the columns path and label.",
            "Fill in the column label of a run's label_issues.csv.",
        )
    table = load_table(source)
    missing = [name for name in ("path", "label") if name not in table]
    if missing:
        raise HeadstartError(
            f"--labels {path}: has no column {' and no column '.join(missing)}.",
            "The first line must name the columns path and label.",
        )
    table = table[["path", "label"]].astype(object)
    table = table.where(table.notna(), "").astype(str).apply(lambda column: column.str.strip())
    return table[table["label"] != ""].drop_duplicates()


def _check(catalog: Catalog, table: pd.DataFrame, path: str | Path) -> None:
    absent = sorted(set(table["path"]) - set(catalog.photos["path"]) - set(catalog.problems["path"]))
    if absent:
        raise HeadstartError(
            f"--labels {path}: {counted(len(absent), 'path')} in it not among the photos: {listed(absent)}.",
            f"Paths are relative to {catalog.root}, as in catalog.csv and label_issues.csv.",
        )
    twice = sorted(set(table.loc[table["path"].duplicated(), "path"]))
    if twice:
        raise HeadstartError(f"--labels {path}: more than one label for {listed(twice)}.", "Give each photo one row.")
    unknown = sorted(set(table["label"]) - set(catalog.class_names))
    if unknown:
        raise HeadstartError(
            f"--labels {path}: no photo has the label {listed([repr(name) for name in unknown])}; expected one of "
            f"{listed([repr(name) for name in catalog.class_names], 10)}.",
            "For a new class, put its photos into a folder of their own.",
        )
