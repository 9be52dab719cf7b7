"""What every peer is given and hands back: its arguments, the time since its process began, and its result."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_IMPORTED = time.perf_counter()


@dataclass(frozen=True)
class Result:
    """What a peer did: `seconds` from the start of its process to the saved model, accuracy from 0 to 1."""

    test_accuracy: float | None
    seconds: float
    notes: str = ""

    def write(self, path: Path) -> None:
        """Write the result as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what every peer takes; a peer adds its own options."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("photos", type=Path, help="a folder with train and test, and the classes inside")
    made.add_argument("result", type=Path, help="the JSON to write; the model goes next to it")
    made.add_argument("--seed", type=int, default=0, help="(0)")
    return made


def seconds_since_start() -> float:
    """Return the seconds since this process began; where there is no /proc, since this module was imported."""
    try:
        # The name in brackets may hold spaces; the time of the start, in ticks since boot, is the 20th after it.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return time.perf_counter() - _IMPORTED
