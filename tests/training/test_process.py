import mmap
import os
import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.training.process import keep_large_buffers, large_buffers_kept, let_idle_threads_sleep


def test_glibc_takes_the_thresholds():
    glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    assert keep_large_buffers() is glibc


def test_memory_is_given_back_when_training_is_over():
    if not keep_large_buffers():
        pytest.skip("only glibc is told to keep memory")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    @large_buffers_kept()
    def work():
        several = [np.ones(2**22, np.uint8) for _ in range(100)]
        last = np.ones(2**20, np.uint8)  # above them on the heap, where nothing is given back by itself
        most = resident()
        del several
        return last, most, resident()

    _last, most, kept = work()
    assert most - kept < 100 * 2**20
    assert most - resident() > 300 * 2**20


def test_threads_sleep_unless_the_user_chose_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    let_idle_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    let_idle_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
