"""Decoding many photos ahead of their use: in threads, in order, in bounded memory.

Pillow lets go of Python's lock while it decodes and resizes, so threads keep all cores busy.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from headstart.photos.decode import pillow_warnings_silenced
from headstart.photos.views import Pixels

Job = TypeVar("Job")
Result = TypeVar("Result")
Tag = TypeVar("Tag")


def num_workers() -> int:
    """Return how many threads decode."""
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
