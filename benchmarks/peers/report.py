"""The peers' report: tables in docs/benchmarks.md, between two marks, and the picture next to it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contestants import HEADSTART, Contestant
from measuring import note, spread, table
from picture import Point, draw
from results import Result

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


@dataclass(frozen=True)
class Summary:
    """One contestant over all sets: means over the sets of medians over the rounds.

    `ratio` is its time as a multiple of the reference's, the geometric mean over the sets. Each is none where a set is
    missing or has no such number. `peak_mib` is the greatest of the medians, `rounds` what each set has.
    """

    contestant: Contestant
    accuracy: float | None
    seconds: float | None
    ratio: float | None
    peak_mib: int | None
    rounds: int


def write_report(
    results: Sequence[Result],
    contestants: Sequence[Contestant],
    sets: Sequence[str],
    reference: str,
    docs: Path,
    command: str,
) -> None:
    """Put the tables into docs/benchmarks.md and the picture into docs/benchmarks.png.

    Times are also told as multiples of those of the contestant named `reference`.
    """
    results = [result for result in results if result.set in sets]
    seen = {result.contestant for result in results}
    shown = [contestant for contestant in contestants if contestant.name in seen]
    if not shown:
        note("no results yet, so no report")
        return
    sets = [name for name in sets if any(result.set == name for result in results)]
    summaries = [_summary(contestant, results, sets, reference) for contestant in shown]
    told = next((contestant.label for contestant in shown if contestant.name == reference), reference)
    page = docs / "benchmarks.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    parts = [BEGIN, _facts(results, command), *_tables(results, shown, sets, summaries, told), END]
    page.write_text(before + "\n\n".join(parts) + after, encoding="utf-8")
    draw([_point(summary) for summary in summaries], len(sets), docs / "benchmarks.png")
    note(f"report: {page.name}, benchmarks.png")


def _summary(contestant: Contestant, results: Sequence[Result], sets: Sequence[str], reference: str) -> Summary:
    accuracies = [_median(_values(results, contestant.name, name, "test_accuracy")) for name in sets]
    seconds = [_median(_values(results, contestant.name, name, "seconds")) for name in sets]
    ratios = [_median(_ratios(results, contestant.name, reference, name)) for name in sets]
    peaks = [peak for name in sets if (peak := _median(_values(results, contestant.name, name, "peak_mib")))]
    rounds = [sum((result.contestant, result.set) == (contestant.name, name) for result in results) for name in sets]
    return Summary(
        contestant,
        _over_sets(accuracies, statistics.mean),
        _over_sets(seconds, statistics.mean),
        _over_sets(ratios, statistics.geometric_mean),
        round(max(peaks)) if peaks else None,
        min(rounds),
    )


def _values(results: Sequence[Result], contestant: str, name: str, column: str) -> list[float]:
    """Return a column's values over the rounds; none at all where time ran out in one of them."""
    rounds = [result for result in results if (result.contestant, result.set) == (contestant, name)]
    if any(result.seconds is None for result in rounds):
        return []
    return [getattr(result, column) for result in rounds if getattr(result, column) is not None]


def _ratios(results: Sequence[Result], contestant: str, reference: str, name: str) -> list[float]:
    """Divide by the reference's time round by round: what slowed a whole round cancels out."""
    ours, theirs = (
        {result.round: result.seconds for result in results if (result.contestant, result.set) == (each, name)}
        for each in (reference, contestant)
    )
    if None in theirs.values():
        return []
    return [seconds / ours[number] for number, seconds in theirs.items() if seconds and ours.get(number)]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _over_sets(values: Sequence[float | None], mean: Callable[[Sequence[float]], float]) -> float | None:
    """Take the mean over the sets, if every set has a value: otherwise it would be a mean of other sets."""
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def _facts(results: Sequence[Result], command: str) -> str:
    machines = sorted({result.machine for result in results})
    loads = [result.load for result in results]
    return "\n".join(
        [
            f"- Command: `{command}`",
            f"- Machine: {'; '.join(machines)}; load average when a contestant started {spread(loads)}",
            "- Medians over the rounds (least-greatest)",
        ]
    )


def _tables(
    results: Sequence[Result],
    shown: Sequence[Contestant],
    sets: Sequence[str],
    summaries: Sequence[Summary],
    reference: str,
) -> list[str]:
    header = ["", "test accuracy, %", "wall time, s", f"time / that of {reference}", "peak memory, MiB", "rounds"]
    means = [
        [
            summary.contestant.label,
            _text(summary.accuracy and 100 * summary.accuracy, ".1f"),
            _text(summary.seconds, ".0f"),
            _text(summary.ratio, ".2f"),
            _text(summary.peak_mib, "d"),
            str(summary.rounds),
        ]
        for summary in summaries
    ]
    parts = [f"Over {len(sets)} set{'s' if len(sets) > 1 else ''}: {', '.join(sets)}.", table(header, means)]
    parts += ["![accuracy against time](benchmarks.png)"]
    for title, column, scale, form in (
        ("Test accuracy, %", "test_accuracy", 100, ".1f"),
        ("Wall time, s", "seconds", 1, ".0f"),
        ("Peak memory, MiB", "peak_mib", 1, ".0f"),
    ):
        rows = [
            [contestant.label, *(_cell(results, contestant.name, name, column, scale, form) for name in sets)]
            for contestant in shown
        ]
        parts += [f"### {title}", table(["", *sets], rows)]
    return parts


def _cell(results: Sequence[Result], contestant: str, name: str, column: str, scale: float, form: str) -> str:
    values = [scale * value for value in _values(results, contestant, name, column)]
    if values:
        return spread(values, form)
    stopped = [
        result.notes
        for result in results
        if (result.contestant, result.set) == (contestant, name) and result.seconds is None
    ]
    return stopped[0] if stopped and column == "seconds" else "-"


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _point(summary: Summary) -> Point:
    is_ours = summary.contestant.environment == HEADSTART
    return Point(summary.contestant.label, summary.seconds, summary.accuracy, is_ours, bool(summary.contestant.budget))
