import os
import platform
import sys

from headstart.training.process import keep_large_buffers, let_idle_threads_sleep


def test_glibc_takes_the_thresholds():
    glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    assert keep_large_buffers() is glibc


def test_threads_sleep_unless_the_user_chose_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    let_idle_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    let_idle_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
