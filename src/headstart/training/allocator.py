"""Making glibc keep large buffers between operations."""

from __future__ import annotations

import ctypes
import functools
import platform

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
