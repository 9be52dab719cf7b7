"""Headstart next to its peers: the same photos, the same weights, accuracy against wall time, in one run.

Every contestant has a virtual environment of its own, made by its file in `requirements`, and is a process of its own
that goes from a folder of photos to a saved model: round after round, set after set, each in turn, so that what slows
the machine slows them all. A round's number is its seed. What counts is the time from the start of the process to the
saved model (of Headstart, with a new cache and a new run folder, its test included), the accuracy on the test
photos, and the peak of resident memory of the largest process that it is made of.

Each result is in the table as soon as it is there; the same command goes on with those that are missing.

python benchmarks/peers/run.py SETS --budgets 20s 1m 3m --repeats 3
python benchmarks/peers/run.py SETS --report-only

SETS is made by `benchmarks/sets.py`. Linux or macOS; the environments take about 30 GB on Linux.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from contestants import Contestant, command, everyone, outcome, prepare
from measuring import load, note, processor
from report import write_report
from results import Result, append, read

SETS = ("dogs20", "grocery", "signs", "digits", "dogs20-tiny-grey")
# All contestants get what makes PyTorch quick on a CPU (see measuring.py), so that none is slow for want of it.
SETTINGS = {
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}


def main() -> None:
    options = _options()
    contestants = _chosen(options)
    failed = 0
    if not options.report_only:
        _check_sets(options)
        for name in dict.fromkeys(contestant.environment for contestant in contestants):
            note(f"environment {name}")
            prepare(options.environments.resolve(), name)
        failed = _run_missing(contestants, options)
    results = read(options.results)
    options.repeats = len({result.round for result in results})
    write_report(
        results, everyone(options.budgets), options.sets, options.reference, options.docs, _shown_command(options)
    )
    sys.exit(f"{failed} failed" if failed else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, metavar="SETS", help="a folder of sets of photos, made by sets.py")
    parser.add_argument("--sets", nargs="+", default=list(SETS), help=f"({' '.join(SETS)})")
    parser.add_argument("--repeats", type=int, default=1, help="rounds (1)")
    parser.add_argument("--budgets", nargs="*", default=[], help="of Headstart, besides its defaults: 20s 1m 3m (none)")
    parser.add_argument("--contestants", nargs="+", help="only these, by the names in results.csv (all)")
    parser.add_argument("--results", type=Path, default=Path("results.csv"), help="(results.csv)")
    cache = Path.home() / ".cache" / "headstart-peers"
    parser.add_argument("--environments", type=Path, default=cache, help=f"of the contestants ({cache})")
    parser.add_argument("--timeout", type=float, default=20, help="minutes for one contestant on one set (20)")
    parser.add_argument("--report-only", action="store_true", help="make the report of the results that are there")
    parser.add_argument("--reference", default="headstart", help="whose time the others are compared with (headstart)")
    docs = Path(__file__).parents[2] / "docs"
    parser.add_argument("--docs", type=Path, default=docs, help="where benchmarks.md and benchmarks.png are (docs)")
    return parser.parse_args()


def _check_sets(options: argparse.Namespace) -> None:
    missing = [name for name in options.sets if not (options.photos / name / "train").is_dir()]
    if missing:
        sys.exit(f"{options.photos}: no {', '.join(missing)} with train and test inside; benchmarks/sets.py makes them")


def _chosen(options: argparse.Namespace) -> list[Contestant]:
    known = {contestant.name: contestant for contestant in everyone(options.budgets)}
    unknown = set(options.contestants or ()) - known.keys()
    if unknown:
        sys.exit(f"--contestants {' '.join(sorted(unknown))}: expected some of {', '.join(known)}")
    return [known[name] for name in options.contestants or known]


def _shown_command(options: argparse.Namespace) -> str:
    """Return the command that made the results, without the paths of this machine."""
    parts = ["python benchmarks/peers/run.py SETS"]
    parts += [f"--sets {' '.join(options.sets)}"] if tuple(options.sets) != SETS else []
    parts += [f"--budgets {' '.join(options.budgets)}"] if options.budgets else []
    parts += [f"--repeats {options.repeats}"]
    return " ".join(parts)


def _run_missing(contestants: list[Contestant], options: argparse.Namespace) -> int:
    """Run what is not in the results yet, and return how many failed, which the next command tries again."""
    done = {(result.round, result.set, result.contestant) for result in read(options.results)}
    failed = 0
    for number in range(options.repeats):
        for name in options.sets:
            for contestant in contestants:
                if (number, name, contestant.name) in done:
                    continue
                result = _run(contestant, name, number, options)
                if result is None:
                    failed += 1
                else:
                    append(options.results, result)
    return failed


def _run(contestant: Contestant, name: str, number: int, options: argparse.Namespace) -> Result | None:
    """Run one contestant on one set; return nothing if it failed."""
    note(f"round {number + 1} of {options.repeats}, {name}: {contestant.name}")
    busy = round(load(), 1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        arguments = command(contestant, options.environments.resolve(), (options.photos / name).resolve(), work, number)
        began = time.time()
        status, seconds, peak = _measured(arguments, work / "log.txt", 60 * options.timeout)
        common = {
            "round": number,
            "set": name,
            "contestant": contestant.name,
            "peak_mib": round(peak),
            "load": busy,
            "machine": processor(),
        }
        if seconds >= 60 * options.timeout:
            note(f"  over {options.timeout:g} minutes: stopped")
            return Result(**common, test_accuracy=None, seconds=None, notes=f"over {options.timeout:g} minutes")
        if status != 0:
            lines = (work / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
            note("\n".join([f"  failed with status {status}; the end of what it said:", *lines[-15:]]))
            return None
        accuracy, counted, notes = outcome(contestant, work, began, seconds)
        told = "no accuracy" if accuracy is None else f"{100 * accuracy:.1f}%"
        note(f"  {told} in {counted:.1f} s, {peak:.0f} MiB")
        return Result(**common, test_accuracy=accuracy, seconds=round(counted, 2), notes=notes)


def _measured(arguments: list[str], log: Path, timeout: float) -> tuple[int, float, float]:
    """Run a command; return its exit status, its seconds, and the peak in MiB of its largest process."""
    with log.open("wb") as file:
        started = time.perf_counter()
        process = subprocess.Popen(
            arguments, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **SETTINGS}, start_new_session=True
        )
        # Kills the whole group: its decoding processes as well.
        timer = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            # Like `wait`, but with the resources of this child and its own children alone.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
    # Linux counts in KiB, macOS in bytes.
    return process.returncode, seconds, usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main()
