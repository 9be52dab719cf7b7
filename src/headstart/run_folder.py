"""The run folder: what a run leaves behind, and how an interrupted one is found again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from headstart.atomic import write_json, write_table, write_text
from headstart.checking import Checked
from headstart.console import Console
from headstart.errors import HeadstartError, listed
from headstart.photos.catalog import Catalog
from headstart.photos.datasets import read_photos
from headstart.recipe import Recipe
from headstart.training.hardware import process_number


class RunFolder:
    """The files of one run. `metrics.json` is written last: a run that has it is finished."""

    # The photos of a run that has grown, old and new: there before the run begins.
    LISTING = "photos.csv"

    def __init__(self, path: Path, checkpoints: Path | None = None) -> None:
        self.path = path
        self.recipe = path / "recipe.toml"
        self.catalog = path / "catalog.csv"
        self.problems = path / "problems.csv"
        self.facts = path / "facts.csv"
        self.label_issues = path / "label_issues.csv"
        self.history = path / "history.csv"
        self.metrics = path / "metrics.json"
        self.predictions = path / "predictions.csv"
        self.curves = path / "curves.png"
        self.confusion = path / "confusion.png"
        self.classifier = path / "classifier"
        self.report = path / "report.html"
        self.pictures = path / "pictures"
        self.checkpoints = checkpoints or path / "checkpoints"

    def finished(self, catalog: Catalog) -> bool:
        """Say whether the run was finished on these photos.

        Raises:
            HeadstartError: when it was finished on others.
        """
        if not self.metrics.exists():
            return False
        if self.read_metrics()["catalog_digest"] != catalog.digest:
            raise HeadstartError(
                f"-o {self.path}: holds a finished run, and its photos have changed since.",
                "Choose another folder with -o; what was computed for unchanged photos is used again.",
            )
        return True

    def resumed(self, recipe: Recipe) -> Recipe:
        """Return a recipe with the plan of the run that it resumes, if there is one."""
        if recipe.plan is not None or not self.recipe.exists():
            return recipe
        return recipe.model_copy(update={"plan": Recipe.read(self.recipe).plan})

    def begin(self, recipe: Recipe, catalog: Catalog, found: Checked) -> None:
        """Write the recipe, the catalog and what was found wrong with it: from here on the run can be resumed."""
        write_text(self.recipe, recipe.to_toml())
        write_table(self.catalog, catalog.photos)
        write_table(self.problems, found.problems_of(catalog))
        if found.facts is not None:
            write_table(self.facts, found.facts)

    def read_catalog(self) -> pd.DataFrame:
        """Read `catalog.csv`; every cell is text."""
        return pd.read_csv(self.catalog, dtype=str, keep_default_na=False)

    def read_facts(self) -> pd.DataFrame | None:
        """Read `facts.csv`, where photos were checked."""
        if not self.facts.exists():
            return None
        kinds: dict[str, str] = dict.fromkeys(
            ("path", "label", "split", "digest", "file_format", "mode", "camera"), "str"
        )
        kinds["fingerprint"] = "uint64"
        numbers = {"taken": "", "sharpness": ""}  # may be missing
        return pd.read_csv(self.facts, dtype=kinds, keep_default_na=False, na_values=numbers)

    def read_predictions(self) -> pd.DataFrame:
        """Read `predictions.csv`; a class may well be called NA."""
        texts = dict.fromkeys(("path", "label", "prediction"), str)
        return pd.read_csv(self.predictions, dtype=texts, keep_default_na=False)

    def read_metrics(self) -> dict[str, Any]:
        """Read `metrics.json`."""
        metrics: dict[str, Any] = json.loads(self.metrics.read_text(encoding="utf-8"))
        return metrics

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write `metrics.json`, which marks the run as finished."""
        write_json(self.metrics, metrics)


def finished_run(path: Path) -> RunFolder:
    """Return the folder of a finished run.

    Raises:
        HeadstartError: when it is none.
    """
    folder = RunFolder(path)
    if not path.exists():
        raise HeadstartError(f"{path}: no such folder.", "Give the -o folder of `headstart train`.")
    if not folder.metrics.exists():
        raise HeadstartError(
            f"{path}: is not a finished run (metrics.json is missing).", "Give the -o folder of `headstart train`."
        )
    return folder


def run_beside(classifier: Path) -> RunFolder | None:
    """Return the run folder that a classifier's folder lies in, or that it is; None where there is none any more."""
    for path in (classifier, classifier.parent):
        folder = RunFolder(path)
        if folder.catalog.exists() and folder.recipe.exists():
            return folder
    return None


def photos_of_run(folder: RunFolder, store: Path, console: Console) -> pd.DataFrame:
    """Return `catalog.csv` of a run with absolute paths, which need not be there any more.

    Args:
        folder: of a run that has begun.
        store: the cache folder, where datasets by name lie.
        console: where to print what is downloaded.

    Raises:
        HeadstartError: when the run's photos cannot be found at all.
    """
    root = read_photos(Recipe.read(folder.recipe).photos, store, console).root
    table = folder.read_catalog()
    return table.assign(path=[str(root / path) for path in table["path"]])


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that are empty, from the innermost outwards."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def open_run_folder(path: Path, recipe: Recipe) -> Iterator[RunFolder]:
    """Open a run folder for this recipe: a new one, or one that the same recipe has begun.

    Where several processes train together, the first one's folder is the run's; the others write into a folder that
    goes away, and resume from the same checkpoint.

    Raises:
        HeadstartError: when the folder holds something else, another recipe's run, or is in use.
    """
    if process_number() > 0:
        with tempfile.TemporaryDirectory() as aside:
            yield RunFolder(Path(aside), path / "checkpoints")
        return
    folder = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise HeadstartError(f"-o {path}: is a file; expected a folder.", "Choose another with -o.")
    if folder.recipe.exists():
        differences = recipe.differences(Recipe.read(folder.recipe))
        if differences:
            raise HeadstartError(
                f"-o {path}: holds a run of another recipe: {listed(differences)}.",
                "Choose another folder with -o, or repeat that run with --recipe.",
            )
    elif path.exists() and any(
        not entry.name.startswith(".") and entry.name != RunFolder.LISTING for entry in path.iterdir()
    ):
        raise HeadstartError(
            f"-o {path}: holds files and is not a run; expected a new or empty folder.", "Choose another with -o."
        )
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = path / ".lock"
        with FileLock(lock, timeout=0):
            try:
                yield folder
            finally:
                if not folder.recipe.exists():
                    # Nothing was begun, so nothing stays: a mended command may use the same folder.
                    lock.unlink(missing_ok=True)
                    _remove_empty([path, *new])
    except Timeout:
        raise HeadstartError(f"-o {path}: another process is working on this run.", "Wait for it to end.") from None
    except PermissionError as error:
        raise HeadstartError(
            f"-o {path}: cannot be written: {error.strerror} ({error.filename}).", "Choose another with -o."
        ) from None
