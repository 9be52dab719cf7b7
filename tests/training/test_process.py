import mmap
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from headstart.training.process import large_buffers_kept, prepare_process


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_memory_is_kept_in_training_and_given_back_afterwards():
    def work():
        several = [np.ones(2**22, np.uint8) for _ in range(100)]
        last = np.ones(2**20, np.uint8)  # above them on the heap, where nothing is given back by itself
        most = resident()
        del several
        return last, most, resident()

    with large_buffers_kept() as taken:
        assert taken is (sys.platform == "linux" and platform.libc_ver()[0] == "glibc")
        if not taken:
            pytest.skip("only glibc is told to keep memory")
        _last, most, kept = work()
    assert most - kept < 100 * 2**20
    assert most - resident() > 300 * 2**20


def test_after_training_a_large_buffer_is_given_back_at_once():
    if not (sys.platform == "linux" and platform.libc_ver()[0] == "glibc"):
        pytest.skip("only glibc is told to keep memory")
    # In a process of its own: where other tests left a hole as large in the heap, the buffer would lie there.
    script = """
        import mmap
        from pathlib import Path
        import numpy as np
        from headstart.training.process import large_buffers_kept
        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
        with large_buffers_kept():
            pass
        before = resident()
        large = np.ones(2**27, np.uint8)
        with_it = resident()
        del large
        print(with_it - before, with_it - resident())
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    taken, given_back = map(int, ran.stdout.split())
    assert taken > 100 * 2**20 and given_back > 100 * 2**20


def test_threads_sleep_unless_the_user_chose_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    prepare_process()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_process()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_threads_share_as_many_heaps_as_there_are_cores(tmp_path):
    if not (sys.platform == "linux" and platform.libc_ver()[0] == "glibc"):
        pytest.skip("only glibc has a heap for each thread")
    several = max(2, os.cpu_count() or 1) + 4
    script = f"""
        import ctypes, threading
        from headstart.training.process import prepare_process
        prepare_process()
        together = threading.Barrier({several})
        def work():
            kept = [bytearray(10_000) for _ in range(10)]
            together.wait()
        threads = [threading.Thread(target=work) for _ in range({several})]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        libc = ctypes.CDLL(None)
        libc.fopen.restype = ctypes.c_void_p
        file = ctypes.c_void_p(libc.fopen({os.fsencode(tmp_path / "heaps.xml")!r}, b"w"))
        libc.malloc_info(0, file)
        libc.fclose(file)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def heaps(**chosen):
        subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment | chosen, check=True)
        return (tmp_path / "heaps.xml").read_text().count("<heap nr=")

    shared = heaps()
    assert 1 <= shared <= max(2, os.cpu_count() or 1)
    assert heaps(MALLOC_ARENA_MAX="64") > shared  # each thread has its own when the user says so
