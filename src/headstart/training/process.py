"""Settings of this process that the speed of training on a CPU hangs on."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@functools.cache
def keep_large_buffers() -> bool:
    """Tell glibc's allocator to keep freed memory instead of giving it back to the system at once.

    PyTorch allocates an operation's output anew each time. Beyond 32 MiB glibc maps such a buffer and unmaps
    it again, and the page faults take up to half of the training time on a CPU. (mallopt(3): M_MMAP_THRESHOLD
    at its maximum, M_TRIM_THRESHOLD at 1 GiB.)

    Returns:
        Whether the allocator took it: only on Linux with glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # A limit of 1 GiB for both; glibc refuses a larger mmap threshold only on 32-bit systems.
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30))


@contextlib.contextmanager
def large_buffers_kept() -> Iterator[None]:
    """Keep freed memory while training, and give it back to the system afterwards, up to 0.9 GB (malloc_trim(3)).

    It decorates a function whose own buffers are free by then.
    """
    kept = keep_large_buffers()
    try:
        yield
    finally:
        if kept:
            ctypes.CDLL(None).malloc_trim(0)


def let_idle_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they wait for each other, instead of spinning.

    Spinning threads win little on an idle computer, and where anything else runs they keep the very thread
    that they wait for from its core: with one other busy process on two cores, an epoch took 4.3 s asleep and
    7 to 26 s spinning (docs/experiments.md). OpenMP reads this as it is loaded, so it comes before PyTorch is
    imported; a choice of the user's stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
