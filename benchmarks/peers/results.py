"""The table of results: a CSV file with a row for every contestant, set and round, written as they come."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """One contestant on one set in one round.

    `test_accuracy` is from 0 to 1, or none where it has none; `seconds` is none where time ran out. `load` is the
    load average when it started.
    """

    round: int
    set: str
    contestant: str
    test_accuracy: float | None
    seconds: float | None
    peak_mib: int
    load: float
    machine: str
    notes: str


def append(path: Path, result: Result) -> None:
    """Add a row, and before the first one the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Result)])
        if is_new:
            writer.writeheader()
        writer.writerow(asdict(result))


def read(path: Path) -> list[Result]:
    """Read all rows; none when there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_result(row) for row in csv.DictReader(file)]


def _result(row: dict[str, str]) -> Result:
    return Result(
        round=int(row["round"]),
        set=row["set"],
        contestant=row["contestant"],
        test_accuracy=float(row["test_accuracy"]) if row["test_accuracy"] else None,
        seconds=float(row["seconds"]) if row["seconds"] else None,
        peak_mib=int(row["peak_mib"]),
        load=float(row["load"]),
        machine=row["machine"],
        notes=row["notes"],
    )
