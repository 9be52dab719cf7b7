"""The tables of a run, as the report reads them: one that is not there is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from headstart.photos.findings import COLUMNS
from headstart.run_folder import RunFolder

# What is said of each test photo, besides the probability of every class.
PREDICTED = ["path", "label", "prediction", "probability"]


@dataclass(frozen=True)
class RunTables:
    """What a run wrote as tables; the columns are those of its CSV files.

    `label_issues` is sorted, most suspect first.
    """

    catalog: pd.DataFrame
    problems: pd.DataFrame
    history: pd.DataFrame
    predictions: pd.DataFrame
    label_issues: pd.DataFrame

    @property
    def class_names(self) -> list[str]:
        """The classes in the classifier's order."""
        columns = (str(column) for column in self.predictions.columns)
        return [name[2:-1] for name in columns if name.startswith("p(") and name.endswith(")")]

    @property
    def mistakes(self) -> pd.DataFrame:
        """The rows of `predictions` that are wrong, surest first."""
        wrong = self.predictions.loc[self.predictions["label"] != self.predictions["prediction"], PREDICTED]
        return wrong.sort_values(["probability", "path"], ascending=[False, True], kind="stable")

    def mean_probabilities(self) -> npt.NDArray[np.float64]:
        """Return (num_classes, num_classes): what test photos of a row's class get for a column's, 0 to 1.

        Rows of classes without test photos are 0.
        """
        names = self.class_names
        columns = self.predictions[[f"p({name})" for name in names]].set_axis(names, axis="columns")
        means = columns.groupby(self.predictions["label"]).mean().reindex(names).fillna(0.0)
        return means.to_numpy(np.float64)


def read_tables(folder: RunFolder) -> RunTables:
    """Read a run's tables."""
    issues = _read(folder.path / "label_issues.csv", ["path", "given_label", "suggested_label"], ["score"])
    curves = [f"{part}_{kind}" for part in ("train", "validation") for kind in ("accuracy", "loss")]
    return RunTables(
        catalog=_read(folder.catalog, ["path", "label", "split", "digest"]),
        problems=_read(folder.problems, COLUMNS),
        history=_read(folder.history, ["stage"], curves),
        predictions=_read(folder.predictions, PREDICTED[:3], PREDICTED[3:]),
        label_issues=issues.sort_values(["score", "path"], kind="stable").reset_index(drop=True),
    )


def _read(path: Path, texts: list[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table; columns that it lacks are empty."""
    columns = [*texts, *numbers]
    if not path.exists():
        return pd.DataFrame({name: pd.Series(dtype=str if name in texts else float) for name in columns})
    table = pd.read_csv(
        path,
        dtype=dict.fromkeys(texts, str),
        # A class may well be called NA; only a number can be missing. File names need not be UTF-8.
        keep_default_na=False,
        na_values={name: [""] for name in numbers},
        encoding_errors="surrogateescape",
    )
    missing = {name: "" if name in texts else np.nan for name in columns if name not in table}
    return table.assign(**missing) if missing else table
