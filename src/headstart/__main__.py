"""The command `headstart`, which is `python -m headstart` too."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys


def main() -> None:
    """Run the command line, whose own imports may be interrupted as well."""
    try:
        from headstart.cli import main as run

        run()
    except KeyboardInterrupt:
        from headstart.interruption import end_interrupted

        end_interrupted()


def command() -> None:
    """Run the command line, and leave without taking apart what is in memory, which takes more than a second.

    Threads are waited for and exit handlers run all the same: the one made here comes before all those of libraries,
    so it runs last.
    """
    status = 1  # of an error that nobody expected

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # its reader has gone, or it is closed: both were told
                stream.flush()
        os._exit(status)

    atexit.register(leave)
    try:
        main()
        status = 0
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            status = ended.code or 0
        raise


if __name__ == "__main__":
    command()
