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

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a bar with photos/s and the time left; yields a function that advances it by n photos."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda n: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} photos/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bars:
            task = bars.add_task(label, total=total, rate="-")

            def advance(n: int) -> None:
                speed = bars.tasks[0].speed
                bars.update(task, advance=n, rate=f"{speed:.0f}" if speed else "-")

            yield advance
