"""What `headstart predict` does with photos besides the table: sorting them, and writing sidecars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from headstart.console import Console
from headstart.errors import HeadstartError, counted, listed
from headstart.sidecars import SidecarWriter
from headstart.sorting import Sorter


class Filing:
    """Called with rows of predictions once they are written down; the same rows again change nothing.

    Args:
        class_names: of the classifier.
        move_to: a folder to move photos to, if any.
        copy_to: a folder to copy them to, if any.
        write_metadata: whether photos get sidecars, where they are in the end.

    Raises:
        HeadstartError: when both folders are given, or photos cannot be sorted into one.
    """

    def __init__(
        self, class_names: list[str], move_to: Path | None, copy_to: Path | None, write_metadata: bool
    ) -> None:
        if move_to is not None and copy_to is not None:
            raise HeadstartError("--move-to and --copy-to: expected one of them.", "Leave one out.")
        folder = move_to if move_to is not None else copy_to
        self.root = folder.absolute() if folder is not None else None
        self._sorter = Sorter(folder, "move" if move_to else "copy", class_names) if folder is not None else None
        self._sidecars = SidecarWriter(self._place_of) if write_metadata else None

    def __call__(self, rows: pd.DataFrame) -> None:
        """Sort the photos of these rows and write their sidecars, as asked."""
        if self._sorter is not None:
            self._sorter(rows)
        if self._sidecars is not None:
            self._sidecars(rows)

    def holds(self, path: str) -> bool:
        """Say whether a path lies in the folder that photos are sorted into: what is there is done."""
        return self.root is not None and Path(path).absolute().is_relative_to(self.root)

    def dealt_with(self, argument: str) -> bool:
        """Say whether an earlier command moved photos away that an argument of the command line names."""
        return self._sorter is not None and self._sorter.dealt_with(argument)

    def left_to_do(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield the paths whose photos were not put into the folder by an earlier command."""
        for path in paths:
            if not self.holds(path) and not (self._sorter is not None and self._sorter.was_moved(path)):
                yield path

    def anything_there(self) -> bool:
        """Whether photos lie in the folder already, where an earlier command put them."""
        return self._sorter is not None and bool(self._sorter.there)

    def tell(self, console: Console) -> None:
        """Say what was done."""
        if self._sorter is not None:
            console.say(self._sorter.told())
        if self._sidecars is not None:
            console.say(f"{counted(self._sidecars.written, 'sidecar')} written")
            if self._sidecars.passed:
                console.warn(
                    f"{counted(len(self._sidecars.passed), 'sidecar')} of other programs left alone: "
                    f"{listed(self._sidecars.passed, 3)}"
                )

    def _place_of(self, path: str) -> Path | None:
        if self._sorter is not None:
            return self._sorter.sorted.get(path)
        return Path(path) if Path(path).exists() else None
