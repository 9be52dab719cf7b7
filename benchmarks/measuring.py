"""What the benchmarks share: alternating contestants, summaries, tables, and a description of the machine.

Two settings of the environment decide how fast plain PyTorch is on a CPU; reports show them in the command when set.

- `OMP_WAIT_POLICY=passive`: PyTorch's threads wait for each other at every layer, by default spinning. Where other work
  runs on the same cores that slows PyTorch by up to ten times and says nothing of the contestants: set it there.
- `MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824`: glibc keeps large buffers instead of mapping
  them anew for every layer, which makes large batches up to three times as fast. The usual script does not have it (in
  fine-tuning Headstart sets it itself); a second run with it tells engine from allocator.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

SETTINGS = ("OMP_WAIT_POLICY", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
PACKAGES = ("torch", "openvino", "timm", "pillow", "headstart")


def alternate(contestants: Mapping[str, Callable[[int], Result]], repeats: int) -> dict[str, list[Result]]:
    """Run all contestants in turn, round after round, so that a noisy neighbour hits each of them.

    Args:
        contestants: each is called with the round's number, from 0.
        repeats: the number of rounds.

    Returns:
        For each contestant its result in each round; those of one round belong together.
    """
    results: dict[str, list[Result]] = {name: [] for name in contestants}
    for number in range(repeats):
        for name, run in contestants.items():
            note(f"round {number + 1} of {repeats}: {name}")
            results[name].append(run(number))
    return results


def note(text: str) -> None:
    """Say on standard error how far things are."""
    print(text, file=sys.stderr, flush=True)


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Summarise repeats as `median (least-greatest)`."""
    median = format(statistics.median(values), form)
    return median if len(values) == 1 else f"{median} ({min(values):{form}}-{max(values):{form}})"


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide round by round: what slowed a whole round cancels out."""
    return [over / under for over, under in zip(above, below, strict=True)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(title: str, parts: Sequence[str], packages: Sequence[str] = ()) -> None:
    """Print a benchmark's result as Markdown: title, command, machine, versions, then its tables and notes.

    Args:
        title: the benchmark, in words.
        parts: paragraphs and tables.
        packages: those whose versions matter besides `PACKAGES`.
    """
    facts = [f"- Command: `{command()}`", f"- Machine: {machine()}", f"- Versions: {versions((*PACKAGES, *packages))}"]
    print("\n\n".join([f"## {title}", "\n".join(facts), *parts]), flush=True)


def command() -> str:
    """Return the command line that is running, with the last part of each path only."""
    settings = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    shown = [Path(argument).name if Path(argument).exists() else argument for argument in sys.argv[1:]]
    return " ".join([*settings, "python", f"benchmarks/{Path(sys.argv[0]).name}", *shown])


def machine() -> str:
    """Describe the processor, the cores this process may use, and how busy they are."""
    return f"{processor()}, load average {load():.1f}"


def processor() -> str:
    """Describe the processor and the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_model()}, {cores} cores"


def load() -> float:
    """Return the load average of the last minute; 0 where the system keeps none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(packages: Sequence[str]) -> str:
    """List the versions of Python and of these packages."""
    return ", ".join([f"python {platform.python_version()}", *(f"{name} {_version(name)}" for name in packages)])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
