"""Photos of many requests in one batch: the engine stays full, and nobody waits for company.

A photo goes from the event loop to a thread that decodes it, then to a lane: a thread that takes what is decoded, up to
a batch, and calls the engine. There are as many lanes as the engine works on batches at once. A lane takes what
is there: while all are busy batches fill up by themselves, and an idle engine has nothing to gain by waiting.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Protocol

import numpy as np

from headstart.classifier import Classifier, Prediction
from headstart.errors import PhotoError
from headstart.photos.views import Pixels
from headstart.serve.errors import INTERNAL, ClientLeft, Refusal, draining, overloaded, refusal_of
from headstart.serve.metrics import Metrics

Outcome = Prediction | Refusal
ViewOf = Callable[[], Pixels]

log = logging.getLogger("headstart.serve")


class Connection(Protocol):
    """A client's connection."""

    def on_leaving(self, act: Callable[[], None] | None) -> None:
        """Have this done when the client closes it; None for nothing any more."""


class Job:
    """The photos of one request on their way through a model.

    `outcomes` holds for each photo, in order, its prediction or why there is none; `views` what the
    network saw of each, by its number, where `keeps_views`.
    """

    def __init__(self, photos: Sequence[ViewOf], keeps_views: bool) -> None:
        self.photos: list[ViewOf | None] = list(photos)
        self.views: dict[int, Pixels] = {}
        self.keeps_views = keeps_views
        self.outcomes: list[Outcome | None] = [None] * len(photos)
        self.unsettled = len(photos)
        self.left = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settled(self) -> list[Outcome]:
        """Return the outcomes that are known."""
        return [outcome for outcome in self.outcomes if outcome is not None]


class _Waiting:
    """One decoded photo that waits for a lane."""

    __slots__ = ("index", "job", "since", "view")

    def __init__(self, job: Job, index: int, view: Pixels) -> None:
        self.job, self.index, self.view, self.since = job, index, view, time.perf_counter()


class Batcher:
    """The queue of one model, with the threads that empty it.

    Args:
        name: the model's, for metrics and threads.
        classifier: whose engine is open.
        decoders: the threads that decode, shared by all models.
        queue: how many photos may wait.
        metrics: where stages and batches are counted.
    """

    def __init__(self, name: str, classifier: Classifier, decoders: Executor, queue: int, metrics: Metrics) -> None:
        self._name, self._classifier, self._decoders = name, classifier, decoders
        self._engine = classifier.engine()
        size = classifier.preprocessing.image_size
        self._engine.infer(
            np.zeros((1, size, size, 3), np.uint8)
        )  # so that no client waits for the engine's first steps
        self._queue, self._metrics = queue, metrics
        self._batch_sizes = metrics.batch_size.labels(name)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._ready: deque[_Waiting] = deque()
        self._decoding = 0  # photos that were taken in and are not decoded yet
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._lanes = [
            threading.Thread(target=self._lane, name=f"lane {number} of {name}", daemon=True)
            for number in range(self._engine.lanes)
        ]
        for lane in self._lanes:
            lane.start()

    @property
    def depth(self) -> int:
        """How many photos wait."""
        return self._decoding + len(self._ready)

    def submit(self, photos: Sequence[ViewOf], keeps_views: bool = False) -> Job:
        """Take photos in; `wait_for` waits for what is said of them.

        Args:
            photos: each a function that returns the network's view of it, called in another thread.
            keeps_views: whether the job's `views` are wanted.

        Raises:
            Refusal: when the queue has no room for them.
        """
        job = Job(photos, keeps_views)
        with self._lock:
            if self._closed:
                raise draining()
            if self.depth + len(photos) > self._queue:
                raise overloaded(f"{self.depth} photos wait already, of {self._queue} at most")
            self._decoding += len(photos)
        for index in range(len(photos)):
            self._decoders.submit(self._decode, job, index)
        return job

    async def wait_for(self, job: Job, connection: Connection | None) -> None:
        """Wait until all photos of a job are settled.

        Where the client leaves before that, or the caller is cancelled, the photos' places in the queue are freed.

        Raises:
            ClientLeft: when it does.
        """
        if connection is not None:
            connection.on_leaving(partial(self._leave, job))
        try:
            await job.done
        except asyncio.CancelledError:
            self._leave(job)
            raise
        finally:
            if connection is not None:
                connection.on_leaving(None)

    def _leave(self, job: Job) -> None:
        """Drop what is left of a job; what is in the engine ends there, unheard."""
        if not job.done.done():
            job.done.set_exception(ClientLeft())
        with self._lock:
            if job.left:
                return
            job.left = True
            self._decoding -= sum(photo is not None for photo in job.photos)
            job.photos = [None] * len(job.photos)
            self._ready = deque(waiting for waiting in self._ready if waiting.job is not job)

    def close(self) -> None:
        """End the lanes once the queue is empty."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        for lane in self._lanes:
            lane.join()

    def _decode(self, job: Job, index: int) -> None:
        view_of = job.photos[index]
        if view_of is None:
            return
        started = time.perf_counter()
        outcome: Pixels | Refusal
        try:
            outcome = view_of()
        except PhotoError as error:
            outcome = refusal_of(error)
        except Exception:
            log.exception("a photo could not be prepared")
            outcome = Refusal("internal", INTERNAL)
        self._metrics.decoding.observe(time.perf_counter() - started)
        with self._lock:
            if job.left:
                return
            job.photos[index] = None  # the file's bytes are not needed any more
            self._decoding -= 1
            if isinstance(outcome, Refusal):
                finished = self._settle([(job, index, outcome)])
            else:
                finished = []
                self._ready.append(_Waiting(job, index, outcome))
                self._changed.notify()
        self._tell(finished)

    def _lane(self) -> None:
        while batch := self._take():
            started = time.perf_counter()
            self._batch_sizes.observe(len(batch))
            for waiting in batch:
                self._metrics.waiting.observe(started - waiting.since)
            outcomes = self._computed(batch)
            self._metrics.engine.observe(time.perf_counter() - started)
            with self._lock:
                settled = [(each.job, each.index, outcome) for each, outcome in zip(batch, outcomes, strict=True)]
                finished = self._settle(settled)
            self._tell(finished)

    def _take(self) -> list[_Waiting]:
        """Wait for photos and return a batch of them; none when the queue is closed and empty."""
        size = self._engine.batch_size
        with self._lock:
            while not self._ready:
                if self._closed:
                    return []
                self._changed.wait()
            batch = [self._ready.popleft() for _ in range(min(size, len(self._ready)))]
            if self._ready:
                self._changed.notify()
            return batch

    def _computed(self, batch: list[_Waiting]) -> Sequence[Outcome]:
        try:
            outputs = self._engine.infer(np.stack([waiting.view for waiting in batch]))
            return self._classifier.predictions([""] * len(batch), outputs)
        except Exception:
            log.exception("the engine of %s failed", self._name)
            return [Refusal("internal", INTERNAL)] * len(batch)
        finally:
            for waiting in batch:
                if waiting.job.keeps_views:
                    waiting.job.views[waiting.index] = waiting.view

    def _settle(self, outcomes: list[tuple[Job, int, Outcome]]) -> list[Job]:
        """Note outcomes, under the lock, and return the jobs that are finished by them."""
        finished = []
        for job, index, outcome in outcomes:
            job.outcomes[index] = outcome
            job.unsettled -= 1
            if not job.unsettled:
                finished.append(job)
        return finished

    def _tell(self, finished: list[Job]) -> None:
        if finished:
            self._loop.call_soon_threadsafe(_resolve, finished)


def _resolve(finished: list[Job]) -> None:
    for job in finished:
        if not job.done.done():
            job.done.set_result(None)
