"""Work in other processes, whose pixels come back through memory that both sides map.

Through the pipes of a pool some 2,000 photos a second come back, however many processes there are
(benchmarks/README.md).
"""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import queue
import signal
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import cache
from typing import Any, TypeVar

from headstart.errors import HeadstartError
from headstart.photos.decode import pillow_warnings_silenced

Job = TypeVar("Job")
Result = TypeVar("Result")

# Where the operating system lets one process map another's file by its path as long as it lives.
AVAILABLE = os.name == "posix"
# What comes back at once at most, but for what is small: 8 photos of 400 pixels. Larger ones go through the pipes.
_SLOT_BYTES = 4 << 20
_IDLE_SECONDS = 20


def start(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Answer:
    """Begin `work(job)` for each of a few jobs in one of so many processes.

    Args:
        work: a function of a module, or a method of what pickles.
        jobs: with what `work` returns, they must pickle.
        workers: how many processes there are.
    """
    room = _room(4 * workers)
    slot = room.take()
    place = None if slot is None else (room.path, slot)
    return Answer(room, slot, _pool(workers).submit(_answer, work, jobs, place))


class Answer:
    """What another process will have worked out."""

    def __init__(self, room: _Room, slot: int | None, future: Future[tuple[bytes, list[int]]]) -> None:
        self._room, self._slot, self._future = room, slot, future

    def results(self) -> list[Any]:
        """Wait for it and return it, in the order of the jobs.

        Raises:
            HeadstartError: when the process has ended, which the operating system does where memory is short.
        """
        try:
            pickled, sizes = self._future.result()
            buffers = self._room.read(self._slot, sizes) if self._slot is not None else []
        except BrokenExecutor:
            raise HeadstartError(
                "a process that reads photos ended before its work was done.",
                "Memory may have been short: end other programs, and run the same command again; it goes on.",
            ) from None
        finally:
            self._let_go()
        found: list[Any] = pickle.loads(pickled, buffers=buffers)
        return found

    def abandon(self) -> None:
        """Do without it, where it has not begun yet."""
        self._future.cancel()
        self._future.add_done_callback(lambda _: self._let_go())

    def _let_go(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            self._room.give_back(slot)


class _Room:
    """Slots in a file in memory, which other processes map by its path."""

    def __init__(self, slots: int) -> None:
        if hasattr(os, "memfd_create"):  # Linux: it is gone with this process, however that ends
            descriptor = os.memfd_create("headstart-pixels")
            self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
        else:
            descriptor, self.path = tempfile.mkstemp(prefix="headstart-pixels-")
        os.ftruncate(descriptor, slots * _SLOT_BYTES)
        self._mapped = mmap.mmap(descriptor, slots * _SLOT_BYTES)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(slots):
            self._free.put(slot)

    def take(self) -> int | None:
        """Return a slot that nobody uses; None where there is none."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return None

    def give_back(self, slot: int) -> None:
        self._free.put(slot)

    def read(self, slot: int, sizes: Sequence[int]) -> list[memoryview]:
        """Copy so many buffers out of a slot."""
        start = slot * _SLOT_BYTES
        copied = memoryview(self._mapped[start : start + sum(sizes)])
        ends = list(itertools.accumulate(sizes))
        return [copied[end - size : end] for size, end in zip(sizes, ends, strict=True)]


@cache
def _room(slots: int) -> _Room:
    return _Room(slots)


def _pool(workers: int) -> Executor:
    """Return the pool, which lasts as long as it is used and a little longer.

    Unlike those of Python's own pools, its processes do not run the user's script anew.
    """
    from loky import get_reusable_executor  # type: ignore[import-untyped]

    pool: Executor = get_reusable_executor(workers, timeout=_IDLE_SECONDS, initializer=_ignore_interruption)
    return pool


# In the other processes


def _ignore_interruption() -> None:
    # Ctrl-C reaches every process of the terminal. The one that asked ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _answer(work: Callable[[Any], Any], jobs: Sequence[Any], place: tuple[str, int] | None) -> tuple[bytes, list[int]]:
    """Return the results, pickled, and the sizes of the buffers that are in the slot instead."""
    with pillow_warnings_silenced():
        results = [work(job) for job in jobs]
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(results, 5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    sizes = [len(buffer) for buffer in raw]
    if place is None or sum(sizes) > _SLOT_BYTES:
        return pickle.dumps(results, 5), []
    path, slot = place
    mapped, end = _mapped(path), slot * _SLOT_BYTES
    for buffer, size in zip(raw, sizes, strict=True):
        mapped[end : end + size] = buffer
        end += size
    return pickled, sizes


@cache
def _mapped(path: str) -> memoryview:
    with open(path, "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0))
