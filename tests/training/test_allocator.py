import platform
import sys

from headstart.training.allocator import keep_large_buffers


def test_glibc_takes_the_thresholds():
    glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    assert keep_large_buffers() is glibc
