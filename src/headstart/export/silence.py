"""Libraries that talk while they are loaded: TensorFlow's notes on its build, on graphics cards that are not there."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from headstart.errors import HeadstartError

_STANDARD_ERROR = 2


@contextmanager
def talk_held_back() -> Iterator[None]:
    """Hold back what is written to standard error inside the block, by C++ too; if the block fails, it is written.

    Not where a `HeadstartError` says all that there is to say.
    """
    try:
        real = os.dup(_STANDARD_ERROR)
    except OSError:  # there is none, as in some windowed programs
        real = -1
    if real < 0:
        yield
        return
    told = b""
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), _STANDARD_ERROR)
        try:
            yield
        except HeadstartError:
            raise
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            told = held.read()
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, _STANDARD_ERROR)
            os.close(real)
            os.write(_STANDARD_ERROR, told)
