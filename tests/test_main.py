"""How a command ends: its exit status, what it has printed, and its exit handlers."""

import subprocess
import sys

import pytest

RUN = "import sys; from headstart.__main__ import command; {before}; sys.argv[1:] = {arguments}; command()"


def ended(*arguments, before="pass", **options):
    code = RUN.format(before=before, arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", code], text=True, stderr=subprocess.PIPE, check=False, **options)


def test_what_was_printed_arrives_and_the_status_is_the_commands(tmp_path):
    told = ended("--version", stdout=subprocess.PIPE)
    assert told.returncode == 0 and told.stdout.startswith("headstart ") and told.stderr == ""
    wrong = ended("show", str(tmp_path / "nowhere"), "-o", "views.txt", stdout=subprocess.PIPE)
    assert wrong.returncode == 2 and wrong.stderr.startswith("headstart: -o views.txt: unknown suffix")


def test_exit_handlers_run_and_threads_are_waited_for():
    before = (
        "import atexit, threading, time, headstart.__main__ as it; work = lambda: (time.sleep(0.2), print('worked')); "
        "it.main = lambda: (atexit.register(print, 'handled'), threading.Thread(target=work).start())"
    )
    told = ended(before=before, stdout=subprocess.PIPE)
    assert told.stdout.splitlines() == ["worked", "handled"] and told.returncode == 0


def test_an_error_that_nobody_expected_keeps_its_traceback():
    told = ended(before="import headstart.__main__ as it; it.main = lambda: 1 / 0", stdout=subprocess.PIPE)
    assert told.returncode == 1 and told.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_behind_standard_output_is_told():
    with open("/dev/full", "w") as full:
        told = ended("backbones", stdout=full)
    assert told.returncode == 2 and told.stderr.startswith("headstart: the disk: No space left on device.")
