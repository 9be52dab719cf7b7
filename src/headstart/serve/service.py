"""What the routes share: the models, the limits, and whether the server is stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from headstart.classifier import Classifier, Prediction
from headstart.network.saliency import overlay, saliency
from headstart.photos.loading import num_workers
from headstart.photos.views import Pixels
from headstart.serve.batching import Batcher, Connection, Job, Outcome
from headstart.serve.bodies import Bodies
from headstart.serve.errors import Refusal, draining, overloaded
from headstart.serve.limits import Limits
from headstart.serve.metrics import Metrics

Result = TypeVar("Result")
# Explanations are drawn one after another, by PyTorch: this many may wait.
_EXPLANATIONS = 8


@dataclass(frozen=True)
class Model:
    """A classifier under its name, with its queue."""

    name: str
    classifier: Classifier
    batcher: Batcher

    def view_of(self, photo: bytes | Pixels, limits: Limits) -> Callable[[], Pixels]:
        """Return the work of preparing a photo: an image file, or (h, w, 3) RGB in 0-255."""
        return partial(self.classifier.view, photo, limits.max_pixels)

    def described(self) -> dict[str, Any]:
        """Return what a client may know of it, as JSON values."""
        classifier = self.classifier
        choice = classifier.engine_choice
        return {
            "name": self.name,
            "backbone": classifier.backbone,
            "image_size": classifier.preprocessing.image_size,
            "resize_policy": classifier.preprocessing.resize_policy,
            "class_names": classifier.class_names,
            "engine": f"{choice.name} on {choice.device}, {choice.precision}",
            "accepts": classifier.rejection.told() if classifier.rejection else None,
            "accuracy": (classifier.training.get("test") or {}).get("accuracy"),
        }


class Service:
    """The models that a server answers for.

    Args:
        classifiers: by name, the default one first; their engines are opened.
        limits: of what clients may ask.

    Made inside the event loop that its requests run in.
    """

    def __init__(self, classifiers: Mapping[str, Classifier], limits: Limits) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.bodies = Bodies(limits)
        self.draining = False
        self._decoders = ThreadPoolExecutor(num_workers(), thread_name_prefix="decode")
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parse")
        self._painter = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._to_paint = 0
        self._at_work = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.models: dict[str, Model] = {}
        for name, classifier in classifiers.items():
            batcher = Batcher(name, classifier, self._decoders, limits.queue, self.metrics)
            self.models[name] = Model(name, classifier, batcher)
            self.metrics.watch_queue(name, partial(getattr, batcher, "depth"))

    def model(self, name: str | None) -> Model:
        """Return the model of this name; the first one for None.

        Raises:
            Refusal: when there is none.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            known = ", ".join(self.models)
            raise Refusal("unknown_model", f"There is no model of the name given; expected one of: {known}.")
        return self.models[name]

    def check_ready(self) -> None:
        """Do nothing while work is taken.

        Raises:
            Refusal: when the server is stopping.
        """
        if self.draining:
            raise draining()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Hold the server's stop off while a request is worked on.

        Raises:
            Refusal: when the server is stopping already.
        """
        self.check_ready()
        self._at_work += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._idle.set()

    async def predict(
        self,
        model: Model,
        photos: Sequence[bytes] | Sequence[Pixels],
        connection: Connection | None,
        keeps_views: bool = False,
    ) -> Job:
        """Return the job of photos once each outcome is known.

        Args:
            model: one of `models`.
            photos: image files, or (h, w, 3) RGB in 0-255.
            connection: whose end ends the work.
            keeps_views: whether the job's `views` are wanted.

        Raises:
            Refusal: when there is no room for them.
            ClientLeft: when the connection ends first.
        """
        job = model.batcher.submit([model.view_of(photo, self.limits) for photo in photos], keeps_views)
        await model.batcher.wait_for(job, connection)
        self._count(model, job.settled())
        return job

    async def explain(self, model: Model, view: Pixels, label: int) -> bytes:
        """Return a PNG of a view with what speaks for a class laid over it.

        Raises:
            Refusal: when too many others wait for theirs.
        """
        if self._to_paint >= _EXPLANATIONS:
            raise overloaded(f"{self._to_paint} explanations are waited for already")
        self._to_paint += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._painter, _painted, model, view, label)
        finally:
            self._to_paint -= 1

    async def aside(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Do something that would hold up the event loop, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._parser, work, *arguments)

    async def drain(self, seconds: float) -> bool:
        """Take no more work and wait until what was taken is done; says whether it was, within this time."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    def close(self) -> None:
        """End all threads."""
        for pool in (self._decoders, self._parser, self._painter):
            pool.shutdown(cancel_futures=True)
        for model in self.models.values():
            model.batcher.close()

    def _count(self, model: Model, outcomes: Sequence[Outcome]) -> None:
        said = sum(isinstance(outcome, Prediction) for outcome in outcomes)
        if said:
            self.metrics.photos.labels(model.name, "predicted").inc(said)
        if said < len(outcomes):
            self.metrics.photos.labels(model.name, "unreadable").inc(len(outcomes) - said)


def _painted(model: Model, view: Pixels, label: int) -> bytes:
    import io

    from PIL import Image

    classifier = model.classifier
    (found,) = saliency(classifier.network, classifier.preprocessing, np.array([view]), np.array([label]))
    file = io.BytesIO()
    Image.fromarray(overlay(view, found)).save(file, "PNG")
    return file.getvalue()
