"""Settings of this process that the speed and the memory of training on a CPU hang on."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# Where glibc's own thresholds rise to as a process frees large buffers, and what keeps those of training.
_USUAL, _IN_TRAINING = (32 << 20, 64 << 20), (1 << 30, 1 << 30)


def prepare_process() -> None:
    """Have OpenMP's threads sleep while they wait for each other, and a heap for each core instead of for each thread.

    Spinning threads win little on an idle computer, and where anything else runs they keep the very thread
    that they wait for from its core: with one other busy process on two cores, an epoch took 4.3 s asleep and
    7 to 26 s spinning (docs/experiments.md). OpenMP reads this as it is loaded, so it comes before PyTorch is
    imported; a choice of the user's stays.

    What a thread's heap has once needed, no other thread uses: with one for each, the whole network's training took
    130 MiB more, and decoding was no faster (benchmarks/README.md). (mallopt(3): M_ARENA_MAX.)
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    libc = _glibc()
    if libc and "MALLOC_ARENA_MAX" not in os.environ:
        libc.mallopt(_M_ARENA_MAX, max(2, os.cpu_count() or 1))


@contextlib.contextmanager
def large_buffers_kept() -> Iterator[bool]:
    """Have glibc keep freed memory while training, and give back what is free before and after.

    PyTorch allocates an operation's output anew each time. Beyond 32 MiB glibc maps such a buffer and unmaps
    it again, and the page faults take up to half of the training time on a CPU. What runs between (embedding,
    evaluation) would keep as much again, so there the thresholds are lower. (mallopt(3), malloc_trim(3).)

    It decorates a function whose own buffers are free at its end, or is entered; then it tells whether the allocator
    took it: only on Linux with glibc.
    """
    kept = _give_back_and_set(*_IN_TRAINING)
    try:
        yield kept
    finally:
        _give_back_and_set(*_USUAL)


def _give_back_and_set(mapped_from: int, kept_up_to: int) -> bool:
    """Give free memory back; from now on map buffers of so many bytes for themselves, and keep so many free."""
    libc = _glibc()
    if not libc:
        return False
    libc.malloc_trim(0)
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, mapped_from)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, kept_up_to))


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
