"""Decoding many photos ahead of their use: in threads or processes, in order, in bounded memory.

Pillow lets go of Python's lock while it decodes and resizes, so a few threads keep their cores busy. What it does in
Python keeps many of them from it: threads decode some 2,000 small photos a second on however many cores
(benchmarks/README.md), so where there are more photos and cores, processes do.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from headstart.photos import processes
from headstart.photos.decode import pillow_warnings_silenced
from headstart.photos.views import Pixels

Job = TypeVar("Job")
Result = TypeVar("Result")
Tag = TypeVar("Tag")

# Starting processes takes as long as threads take to decode so many photos.
FEWEST_CORES, FEWEST_PHOTOS = 4, 2000
_JOBS_AT_ONCE, _SAMPLE = 8, 64


def num_workers() -> int:
    """Return how many threads decode, or processes."""
    return max(2, os.cpu_count() or 1)


def ahead(jobs: Iterable[Job], work: Callable[[Job], Result], window: int | None = None) -> Iterator[Result]:
    """Yield `work(job)` for each job in order, computed in threads at most `window` jobs ahead."""
    workers = num_workers()
    window = window or 4 * workers
    pending: deque[Future[Result]] = deque()
    with pillow_warnings_silenced(), ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for job in jobs:
                pending.append(pool.submit(work, job))
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def spread(jobs: Iterable[Job], work: Callable[[Job], Result], among: int) -> Iterator[Result]:
    """Yield `work(job)` for each job in order, as `ahead` does, in processes where they pay.

    Args:
        jobs: with what `work` returns, they must pickle.
        work: a function of a module, also as a `partial`, or a method of what pickles.
        among: how many photos or views there are in all; of a sample, those that it is of.
    """
    if not _in_processes(among):
        yield from ahead(jobs, work)
        return
    pending: deque[processes.Answer] = deque()
    workers = num_workers()
    try:
        left = iter(jobs)
        while some := list(islice(left, _JOBS_AT_ONCE)):
            pending.append(processes.start(work, some, workers))
            if len(pending) >= 2 * workers:
                yield from pending.popleft().results()
        while pending:
            yield from pending.popleft().results()
    finally:
        for answer in pending:
            answer.abandon()


def all_of(jobs: Sequence[Job], work: Callable[[Job], Result], among: int) -> list[Result]:
    """Return `work(job)` for each of a few jobs, computed in this thread or, as `spread` does, in a process."""
    if not _in_processes(among):
        return [work(job) for job in jobs]
    return processes.start(work, jobs, num_workers()).results()


def sample(photos: Sequence[Job]) -> Sequence[Job]:
    """Return some of the photos, evenly taken: enough to measure how fast they are decoded."""
    size = 2 * _JOBS_AT_ONCE * num_workers() if _in_processes(len(photos)) else _SAMPLE
    return photos[:: max(1, len(photos) // size)][:size]


def warm_seconds(work: Callable[[], Iterable[object]], among: int) -> float:
    """Return how long it takes to run through something, the processes that it may need being there already.

    Args:
        work: returns what is to be run through, anew at each call.
        among: as for `spread`.
    """
    for _ in range(1 + _in_processes(among)):
        started = time.perf_counter()
        for _ in work():
            pass
    return time.perf_counter() - started


def _in_processes(count: int) -> bool:
    return processes.AVAILABLE and num_workers() >= FEWEST_CORES and count >= FEWEST_PHOTOS


def batched(images: Iterable[tuple[Tag, Pixels]], batch_size: int) -> Iterator[tuple[list[Tag], Pixels]]:
    """Stack tagged images of one shape into batches of at most `batch_size`."""
    tags: list[Tag] = []
    pixels: list[Pixels] = []
    for tag, image in images:
        tags.append(tag)
        pixels.append(image)
        if len(tags) == batch_size:
            yield tags, np.stack(pixels)
            tags, pixels = [], []
    if tags:
        yield tags, np.stack(pixels)
