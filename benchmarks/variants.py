"""Variants to try on sets and seeds: the arguments that name them, and the table of outcomes, which is gone on with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the sets, variants, results and seeds."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("sets", type=Path, help="the folder that sets.py made")
    made.add_argument("variants", type=Path, help="a TOML file: a table of choices for each variant")
    made.add_argument("results", type=Path, help="a CSV file, made or appended to")
    made.add_argument("--sets", dest="names", nargs="+", required=True, help="names of sets")
    made.add_argument("--seeds", type=int, nargs="+", default=[0])
    return made


def done(results: Path, key: list[str]) -> set[tuple[Any, ...]]:
    """Return the values of the columns `key` of every row that is there; none where there is no file yet."""
    return set(pd.read_csv(results)[key].itertuples(index=False, name=None)) if results.exists() else set()


def append(results: Path, row: dict[str, Any]) -> None:
    """Add a row and print it."""
    pd.DataFrame([row]).to_csv(results, mode="a", header=not results.exists(), index=False)
    print(row, flush=True)
