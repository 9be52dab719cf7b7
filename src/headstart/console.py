"""What a run says while it works: plain lines, and a progress bar where someone is watching."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


class Console:
    """Prints lines to one stream and progress bars to the terminal.

    Progress goes to standard error and only when that is a terminal, so that pipes and logs stay clean.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self._stream = stream

    def say(self, text: str = "") -> None:
        """Print one line, unless quiet."""
        if not self.quiet:
            print(text, file=self._stream or sys.stdout, flush=True)

    def warn(self, text: str) -> None:
        """Print one line to standard error, even when quiet: something that the user should look at."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    @property
    def watched(self) -> bool:
        """Whether progress bars are shown."""
        return not self.quiet and sys.stderr.isatty()

    @contextmanager
    def progress(self, label: str, total: int | None, unit: str = "photos") -> Iterator[Callable[[int], None]]:
        """Show a bar with units per second and the time left; yields a function that advances it by n units."""
        if not self.watched:
            yield lambda n: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{{task.fields[rate]}} {unit}/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bars:
            task = bars.add_task(label, total=total, rate="-")

            def advance(n: int) -> None:
                speed = bars.tasks[0].speed
                bars.update(task, advance=n, rate=f"{speed:.0f}" if speed else "-")

            yield advance
