"""Checking photos: `headstart check`, which also writes a clean copy, and what `train` checks by itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from headstart.atomic import write_table
from headstart.cache import cache_folder
from headstart.console import Console
from headstart.errors import HeadstartError, counted, listed
from headstart.evaluation.second_opinion import likely_right
from headstart.photos.audit import Audit, audit, examine
from headstart.photos.catalog import Catalog
from headstart.photos.clean import check_target, write_clean
from headstart.photos.datasets import read_photos
from headstart.photos.duplicates import MOST_COMPARED_BY_FEATURES
from headstart.photos.findings import (
    COLUMNS,
    EVERYTHING,
    KINDS,
    NOTE,
    SEVERE,
    SEVERITIES,
    WARNING,
    Finding,
    finding_table,
    left_out,
)
from headstart.photos.loading import sample, warm_seconds

if TYPE_CHECKING:
    from headstart.evaluation.metrics import Probabilities
    from headstart.recipe import Recipe
    from headstart.run_folder import RunFolder
    from headstart.training.data import TrainingData
    from headstart.training.embedding import Embedder
    from headstart.training.probe import Floats

_TABLE = "problems.csv"
_NAMED = 3
# Of the probe's regularisation, where none was chosen.
_USUAL_STRENGTH = 0.03


@dataclass(frozen=True)
class PhotoReport:
    """What a check found: `problems` is the table of `audit`, which `table` names on disk."""

    table: Path
    problems: pd.DataFrame
    photos: int
    classes: int
    clean: Path | None = None
    clean_photos: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """The number of problems of each severity."""
        return severity_counts(self.problems)

    @property
    def severe(self) -> bool:
        """Whether something was found that would spoil what is trained or measured."""
        return self.counts[SEVERE] > 0

    def told(self) -> dict[str, Any]:
        """Return it all as plain values, for JSON."""
        return {
            "photos": self.photos,
            "classes": self.classes,
            "counts": self.counts,
            "table": str(self.table),
            "clean": None if self.clean is None else {"path": str(self.clean), "photos": self.clean_photos},
            "problems": self.problems.to_dict("records"),
        }


def check(
    photos: str | Path,
    output: str | Path = "headstart-check",
    *,
    fix: str | Path | None = None,
    cache: str | Path | None = None,
    quiet: bool = False,
    console: Console | None = None,
) -> PhotoReport:
    """Check photos and labels before training: broken files, copies, leaks, label conflicts, shortcuts and more.

    Args:
        photos: a folder with a folder per class, a table, or the name of a dataset; see `read_photos`.
        output: the folder for `problems.csv`.
        fix: a new folder, or a `.csv` file, for a clean copy without unreadable photos, surplus copies, leaks and
            photos with contradictory labels. The photos themselves stay as they are.
        cache: the cache folder; see `headstart.cache.cache_folder`.
        quiet: whether to print nothing but warnings.
        console: where to print; standard output unless told.

    Raises:
        HeadstartError: for all that `read_photos` refuses, and where `output` or `fix` would overwrite something.
    """
    console, table = console or Console(quiet), Path(output) / _TABLE
    _refuse_other_tables(table)
    if fix is not None:
        check_target(Path(fix))
    catalog = read_photos(photos, cache_folder(cache), console)
    if fix is not None:
        check_target(Path(fix), catalog)
    console.say(catalog.told())
    started = time.perf_counter()
    problems = audit(catalog, console).problems
    seconds = time.perf_counter() - started
    rate = len(catalog.photos) / max(seconds, 1e-9)
    console.say(f"Checked     {counted(len(catalog.photos), 'photo')} in {seconds:.1f} s ({rate:.0f} photos/s)")
    try:
        write_table(table, problems)
    except OSError as error:
        raise HeadstartError(f"-o {output}: cannot be written: {error.strerror}.", "Choose another with -o.") from None
    report = PhotoReport(table, problems, len(catalog.photos), len(catalog.class_names))
    _tell(report, console)
    if fix is not None:
        kept = write_clean(catalog, problems, Path(fix), console)
        report = PhotoReport(table, problems, report.photos, report.classes, Path(fix), kept)
        _tell_clean(report, catalog, console)
    return report


@dataclass(frozen=True)
class Checked:
    """What the check at the beginning of a run found; nothing where it was switched off."""

    audit: Audit | None = None

    @property
    def facts(self) -> pd.DataFrame | None:
        """The facts of each photo."""
        return None if self.audit is None else self.audit.facts

    @cached_property
    def originals(self) -> dict[str, str]:
        """By each photo's digest, the one that stands for all copies of its picture."""
        return {} if self.audit is None else self.audit.originals

    @property
    def counts(self) -> dict[str, int] | None:
        """The number of problems of each severity."""
        return None if self.audit is None else severity_counts(self.audit.problems)

    def problems_of(self, catalog: Catalog) -> pd.DataFrame:
        """Return all problems as a table; where nothing was checked, those that the catalog has by itself."""
        if self.audit is not None:
            return self.audit.problems
        return finding_table(Finding(*row) for row in catalog.problems[["path", "problem", "detail"]].to_numpy(str))


NOT_CHECKED = Checked()
# The most of a budget that goes to checking. Slower than so many photos/s is seldom: of fewer nothing is measured.
_BUDGET_SHARE, _LEAST_RATE = 0.2, 100


def checks_in_time(recipe: Recipe, catalog: Catalog, console: Console) -> bool:
    """Say whether photos are checked: if asked for, and if it takes no large part of the budget."""
    if not recipe.check:
        return False
    if recipe.plan is not None:
        return recipe.plan.check
    photos, limit = catalog.photos, _BUDGET_SHARE * recipe.budget_seconds
    if len(photos) < _LEAST_RATE * limit:
        return True
    some = replace(catalog, photos=photos.iloc[list(sample(range(len(photos))))])
    taken = warm_seconds(lambda: examine(some, Console(quiet=True), among=len(photos)), len(photos))
    seconds = taken / len(some.photos) * len(photos)
    if seconds <= limit:
        return True
    console.say(
        f"Check       left out: {counted(len(photos), 'photo')} would take {seconds:.0f} s of the budget, "
        f"{recipe.budget}. Once: headstart check PHOTOS"
    )
    return False


def check_photos(
    catalog: Catalog, embedder: Embedder | None, console: Console, known: pd.DataFrame | None = None
) -> Checked:
    """Check photos by what `check` looks at, and by their features where they are embedded; say what was found.

    Photos with known facts, as `audit` takes them, are not looked at again.
    """
    from headstart.training.data import photos_of

    started = time.perf_counter()
    found = audit(catalog, console, known)
    if embedder is not None and len(found.facts) <= MOST_COMPARED_BY_FEATURES:
        features = embedder.features(photos_of(found.facts), [0])
        found = found.compared(catalog.root, features.take(slice(0, len(features))))
    problems, seconds = found.problems, time.perf_counter() - started
    console.say(f"Checked     problems: {_counts_text(severity_counts(problems))}, in {seconds:.1f} s (problems.csv)")
    told = problems[(problems["severity"] == SEVERE) & ~problems["path"].isin(catalog.problems["path"])]
    for problem, rows in told.groupby("problem", sort=False):
        first = rows.iloc[0]
        console.warn(f"{problem} ({len(rows):,}): {first['path']}: {first['detail']}. {KINDS[str(problem)].suggestion}")
    return Checked(found)


def suspect_labels(
    folder: RunFolder,
    data: TrainingData,
    stages: dict[str, Any],
    weights: Floats,
    network: Probabilities | None,
    console: Console,
) -> dict[str, Any]:
    """Write the photos whose labels look wrong as `label_issues.csv`, and return their numbers for the metrics.

    `network` is a fine-tuned network's opinion of the validation and test photos, where there is one.
    """
    from headstart.evaluation.label_errors import find_label_issues

    started = time.perf_counter()
    strength = stages.get("probe", {}).get("regularisation", _USUAL_STRENGTH)
    table, found = find_label_issues(data, strength, weights, network)
    write_table(folder.label_issues, table)
    seconds, photos, likely = time.perf_counter() - started, found["photos"], found["suspects"]
    console.say(
        f"Labels      {likely:,} of {photos:,} may be wrong, in {seconds:.1f} s (label_issues.csv; fill in its "
        "column label and train again with --labels)"
        if likely
        else f"Labels      none of {photos:,} looks wrong, in {seconds:.1f} s"
    )
    opinion = found["opinion"]
    if right := likely_right(opinion):
        console.say(
            f"            about {right:,} of the {counted(opinion['training'], 'training photo')} among them "
            f"{'is' if right == 1 else 'are'} likely right: elsewhere the network confirms {opinion['confirmed']:,} of "
            f"{counted(opinion['doubted'], 'label')} that the probe doubts"
        )
    return found


def severity_counts(problems: pd.DataFrame) -> dict[str, int]:
    """Return the number of problems of each severity."""
    return {name: int((problems["severity"] == name).sum()) for name in SEVERITIES}


def _counts_text(counts: dict[str, int]) -> str:
    if not any(counts.values()):
        return "none found"
    return f"{counts[SEVERE]:,} severe, {counted(counts[WARNING], 'warning')}, {counted(counts[NOTE], 'note')}"


def _refuse_other_tables(table: Path) -> None:
    """Keep the problems.csv of a run, which has other columns."""
    if not table.exists():
        return
    with table.open(encoding="utf-8", errors="replace") as file:
        header = file.readline().strip()
    if header != ",".join(COLUMNS):
        raise HeadstartError(f"-o {table.parent}: holds a {_TABLE} of something else.", "Choose another with -o.")


def _tell(report: PhotoReport, console: Console) -> None:
    """Tell of every kind of problem found: the first few of each, of notes the first."""
    for severity in SEVERITIES:
        found = report.problems[report.problems["severity"] == severity]
        if found.empty:
            continue
        console.say(f"\n{severity.capitalize()}")
        named = _NAMED if severity != NOTE else 1
        for problem, rows in found.groupby("problem", sort=False):
            console.say(f"  {problem} ({len(rows):,})")
            for path, detail in rows[["path", "detail"]].head(named).to_numpy(str):
                console.say(f"    {'' if path == EVERYTHING else f'{path}: '}{detail}")
            if len(rows) > named:
                console.say(f"    and {len(rows) - named:,} more")
            if severity != NOTE:
                console.say(f"    -> {KINDS[str(problem)].suggestion}")
    console.say(f"\nProblems    {_counts_text(report.counts)}")
    console.say(f"Table       {report.table}")


def _tell_clean(report: PhotoReport, catalog: Catalog, console: Console) -> None:
    gone = left_out(report.problems)
    left = set(catalog.photos.loc[~catalog.photos["path"].isin(gone), "label"])
    if lost := [name for name in catalog.class_names if name not in left]:
        whose = "its" if len(lost) == 1 else "their"
        console.warn(
            f"the clean copy has no photo of {listed(lost)}: all of {whose} photos are left out, see {report.table}"
        )
    counted_out = report.problems["problem"].map(_leaves_out).astype(bool)  # of no problems at all, it would be text
    rows = report.problems[report.problems["path"].isin(gone) & counted_out]
    reasons = rows.drop_duplicates("path")["problem"].value_counts(sort=False)
    why = ", ".join(f"{count:,} {problem}" for problem, count in reasons.items())
    without = f"without {why}" if why else "nothing is left out"
    console.say(f"Clean copy  {report.clean}: {counted(report.clean_photos, 'photo')}, {without}")


def _leaves_out(problem: str) -> bool:
    return KINDS[problem].left_out
