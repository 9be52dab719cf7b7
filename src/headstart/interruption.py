"""Ctrl-C: one line on standard error and exit code 130, from the first import of a command to its end."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

EXIT_CODE = 130
_GO_ON = ("train", "demo", "add", "compare")


def end_interrupted() -> NoReturn:
    """Say that the command was interrupted, and whether it goes on where it stopped, and exit."""
    # Threads may have work to end; whoever cannot wait for it ends them by a second Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    after = "; the same command goes on where it stopped" if _goes_on(sys.argv[1:]) else ""
    print(f"headstart: interrupted{after}.", file=sys.stderr, flush=True)
    sys.exit(EXIT_CODE)


def _goes_on(arguments: list[str]) -> bool:
    """Say whether a command, which need not have been read yet, keeps what it has done."""
    if arguments[:1] == ["predict"]:
        return any(argument.startswith(("-o", "--output")) for argument in arguments)
    return bool(arguments) and arguments[0] in _GO_ON
