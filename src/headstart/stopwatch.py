"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def fastest(work: Callable[[], object], seconds: float) -> float:
    """Repeat some work for so many seconds, once at least, and return the least that it took, in seconds."""
    least, began = float("inf"), time.perf_counter()
    while True:
        started = time.perf_counter()
        work()
        ended = time.perf_counter()
        least = min(least, ended - started)
        if ended - began >= seconds:
            return least


class Stopwatch:
    """The seconds since a run began, and how many of them each of its stages took.

    Args:
        started: when it began, by `time.perf_counter`, if that was before now: `starting` is the stage until now.
    """

    def __init__(self, started: float | None = None) -> None:
        now = time.perf_counter()
        self._started = now if started is None else started
        self.seconds: dict[str, float] = {} if started is None else {"starting": now - started}

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._started

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Add what is done within to a stage's seconds."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
