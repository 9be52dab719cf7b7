"""Embedding: the frozen prefix over every photo and view, kept in the activation store.

At boundary 0 there is no prefix: pixels are not stored but decoded anew, with a new augmented view in each epoch.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from headstart.choices import Augmentation
from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.network.cut import ActivationsAt, InFloat16, last_boundary
from headstart.photos.catalog import no_problems, problem_table
from headstart.photos.decode import DECODER_VERSION
from headstart.photos.drawing import Drawing, Drawn, Job, Photo
from headstart.photos.loading import all_of, batched, sample, spread, warm_seconds
from headstart.photos.views import VIEWS_VERSION, Pixels, Preprocessing
from headstart.stopwatch import fastest
from headstart.training.engines import Engine, EngineChoice, Int8, open_engine
from headstart.training.hardware import num_processes
from headstart.training.pixel_rows import FreshViews, PixelRows
from headstart.training.store import Shelf, StoredRows, row_key

# Photos whose augmented views set the ranges of activations in 8-bit integers: more move them little, and take longer
# (docs/experiments.md).
_RANGES_PHOTOS = 64


@dataclass(frozen=True, slots=True)
class Pass:
    """What one call of `Embedder.embed` has computed.

    `label` is the caller's, `boundaries` are those stored (none: pixels, only decoded), `views` how many were computed,
    `photo_views` which of a photo, and `decoding_seconds` what decoding and drawing them took, over all threads. Plain
    and augmented views that are not computed in the same precision are two passes.
    """

    label: str
    boundaries: tuple[int, ...]
    views: int
    photo_views: tuple[int, ...]
    decoding_seconds: float


@dataclass(frozen=True, slots=True)
class _Int8Views:
    """How augmented views are computed in 8-bit integers: to which boundaries, and by which photos' ranges.

    `digest` stands for those photos, on which the numbers depend.
    """

    boundaries: tuple[int, ...]
    photos: tuple[Photo, ...]
    digest: str


class Embedder:
    """Computes activations of photos at the boundaries asked for, each once, and reads them back.

    Augmented views may be computed in 8-bit integers (`put_views_in_int8`); plain ones, on which everything is
    measured, never are. `passes` lists what was computed, in order.

    Args:
        root: the folder that photos' names are relative to.
        network: the frozen network; copied, so that it may be trained afterwards.
        identity: what names the network and its weights in the store's keys.
        preprocessing: how photos become pixels.
        augmentation: the policy of views 1 and up, drawn with `seed`.
        choice: the engine to run on.
        cache: the folder of the activation store.
    """

    def __init__(
        self,
        root: Path,
        network: nn.Module,
        identity: dict[str, str],
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        seed: int,
        choice: EngineChoice,
        cache: Path,
    ) -> None:
        self._drawing = Drawing(root, preprocessing, augmentation, seed)
        self._identity = identity
        self.preprocessing = preprocessing
        self.cache = cache
        self.choice = choice
        self._network = copy.deepcopy(network).eval().requires_grad_(False)
        self._open: tuple[tuple[int, ...], dict[bool, Engine]] = (), {}
        self._int8: _Int8Views | None = None
        self._shelves: dict[int, Shelf] = {}
        self._decoding_seconds = 0.0
        self.passes: list[Pass] = []
        self._kind: dict[str, Any] = {
            **identity,
            "preprocessing": preprocessing.model_dump(mode="json"),
            "engine": choice.name,
            "precision": choice.precision,
            "versions": [DECODER_VERSION, VIEWS_VERSION],
        }
        self.features_boundary = last_boundary(network)

    def at(self, image_size: int) -> Embedder:
        """Return one of the same frozen network that sees photos at another size; this one gives up its engines.

        Its views are not in 8-bit integers.
        """
        self._open = (), {}
        preprocessing = self.preprocessing.model_copy(update={"image_size": image_size})
        kept = self._drawing.augmentation, self._drawing.seed, self.choice, self.cache
        return Embedder(self._drawing.root, self._network, self._identity, preprocessing, *kept)

    def embed(
        self, photos: Sequence[Photo], views: range, boundaries: Sequence[int], console: Console, label: str
    ) -> tuple[pd.DataFrame, int]:
        """Compute what is missing of these views of these photos.

        Args:
            photos: to be embedded.
            views: 0 is the evaluation view.
            boundaries: in rising order. Nothing is stored of boundary 0, the pixels: if it is the only one, photos are
                decoded to see whether they can be.
            console: where a progress bar is shown.
            label: what the bar says.

        Returns:
            The photos that could not be read (path, problem, detail), and how many views were computed.
        """
        stored = tuple(boundary for boundary in boundaries if boundary > 0)
        if num_processes() > 1:
            for boundary in stored:
                self.shelf(boundary).refresh()  # the first process may have embedded them meanwhile
        jobs = self._missing(photos, views, stored)
        if not jobs:
            return no_problems(), 0
        total = sum(len(job.views) for job in jobs)
        unreadable: dict[str, str] = {}
        before = len(self.passes)
        with console.progress(label, total) as advance:
            for some in self._by_precision(jobs):
                decoded_before = self._decoding_seconds
                images = self._images(some, unreadable, advance, total)
                if stored:
                    self._store(images, stored, self._in_int8(some[0].views[0]), advance)
                else:
                    for _ in images:
                        advance(1)
                count = sum(len(job.views) for job in some if job.photo.digest not in unreadable)
                decoding_seconds = self._decoding_seconds - decoded_before
                self.passes.append(Pass(label, stored, count, some[0].views, decoding_seconds))
        named = [(photo.name, "unreadable", unreadable[photo.digest]) for photo in photos if photo.digest in unreadable]
        return problem_table(named), sum(done.views for done in self.passes[before:])

    def shelf(self, boundary: int) -> Shelf:
        """Return the shelf of a boundary above 0, the pixels."""
        if boundary not in self._shelves:
            kind = {**self._kind, "boundary": boundary}
            self._shelves[boundary] = Shelf(self.cache / "activations", kind, self.row_shape(boundary))
        return self._shelves[boundary]

    def row_shape(self, boundary: int) -> tuple[int, ...]:
        """Return the shape of one photo's activations."""
        size = self.preprocessing.image_size
        with torch.inference_mode():
            (output,) = ActivationsAt(self._network, (boundary,), self.preprocessing)(torch.zeros(1, 3, size, size))
        return tuple(output.shape[1:])

    def decoding_speed(self, photos: Sequence[Photo], views: tuple[int, ...] = (1,)) -> float:
        """Measure views/s of decoding and drawing these views of some of the photos, with nothing else to do."""
        jobs = [Job(photo, views) for photo in sample(photos)]
        return len(jobs) * len(views) / warm_seconds(lambda: self._drawn(jobs, len(photos)), len(photos))

    def engine_speed(self, boundaries: tuple[int, ...], views: tuple[int, ...] = (0,)) -> float:
        """Measure views/s of the frozen network alone, on random pixels in memory, at its best within about a second.

        Args:
            boundaries: to run to.
            views: those whose precision is measured.

        Raises:
            ValueError: when there are no boundaries.
        """
        if not boundaries:
            raise ValueError("an engine runs to boundaries above 0; got none")
        engine, size = self._engine(boundaries, self._in_int8(views[0])), self.preprocessing.image_size
        pixels = np.random.default_rng(0).integers(0, 256, (engine.batch_size, size, size, 3), np.uint8)
        batches = 16  # of which all but the first and the last have others in flight beside them

        def run() -> None:
            for _ in engine.run((None, pixels) for _ in range(batches)):
                pass

        return batches * engine.batch_size / fastest(run, 1.0)

    def speed(self, photos: Sequence[Photo], views: tuple[int, ...] = (0,)) -> float:
        """Measure views/s of decoding and the frozen network on some of the photos, with nothing stored."""
        jobs = [Job(photo, views) for photo in sample(photos)]
        parts = self._by_precision(jobs)
        engines = [self._engine((self.features_boundary,), self._in_int8(some[0].views[0])) for some in parts]

        def embedded() -> Iterator[Any]:
            for some, engine in zip(parts, engines, strict=True):
                images = self._images(some, {}, lambda n: None, len(photos))
                yield from engine.run(batched(images, engine.batch_size))

        return len(jobs) * len(views) / warm_seconds(embedded, len(photos))

    def put_views_in_int8(self, photos: Sequence[Photo], boundaries: Sequence[int]) -> None:
        """Compute augmented views in 8-bit integers from now on.

        Args:
            photos: that the ranges of activations are set by: some of those with the least digests are taken.
            boundaries: every one above 0 that views will be asked for at, in rising order.
        """
        distinct = {photo.digest: photo for photo in photos}
        chosen = tuple(distinct[digest] for digest in sorted(distinct)[:_RANGES_PHOTOS])
        digest = hashlib.sha256(":".join(photo.digest for photo in chosen).encode()).hexdigest()[:16]
        self._int8 = _Int8Views(tuple(boundaries), chosen, digest)
        self._open = (), {}

    def put_views_back(self) -> None:
        """Compute augmented views in the precision of plain ones again."""
        self._int8 = None
        self._open = (), {}

    def features_in_int8(self, photos: Sequence[Photo]) -> npt.NDArray[np.float32]:
        """Return the (n, num_features) pooled features of the plain views in 8-bit integers; they are not stored.

        For comparison with those stored. Photos must be readable, and `put_views_in_int8` have been called.
        """
        engine = self._engine((self.features_boundary,), int8=True)
        images = self._images([Job(photo, (0,)) for photo in photos], {}, lambda n: None, len(photos))
        return np.concatenate([rows for _, (rows,) in engine.run(batched(images, engine.batch_size))]).astype(
            np.float32
        )

    def rows(self, photos: Sequence[Photo], view: int, boundary: int) -> StoredRows | PixelRows:
        """Return one view's activations of photos that were embedded, in their order."""
        if boundary == 0:
            return PixelRows(photos, view, self._pixels_of)
        return self._stored(photos, [view], boundary)

    def features(self, photos: Sequence[Photo], views: Sequence[int]) -> StoredRows:
        """Return the (n, num_features) pooled features of photos that were embedded, view after view."""
        return self._stored(photos, views, self.features_boundary)

    def fresh_views(self, photos: Sequence[Photo]) -> FreshViews:
        """Return photos' pixels in a new augmented view for each epoch."""
        return FreshViews(photos, self._pixels_of)

    def _stored(self, photos: Sequence[Photo], views: Sequence[int], boundary: int) -> StoredRows:
        return self.shelf(boundary).rows([self._key(photo.digest, view) for view in views for photo in photos])

    def _store(
        self,
        images: Iterator[tuple[bytes, Pixels]],
        boundaries: tuple[int, ...],
        int8: bool,
        advance: Callable[[int], None],
    ) -> None:
        engine = self._engine(boundaries, int8)
        with ExitStack() as stack:
            writers = [stack.enter_context(self.shelf(boundary).writer()) for boundary in boundaries]
            for keys, outputs in engine.run(batched(images, engine.batch_size)):
                for writer, rows in zip(writers, outputs, strict=True):
                    writer.append(keys, rows)
                advance(len(keys))

    def _by_precision(self, jobs: list[Job]) -> list[list[Job]]:
        """Return jobs with the plain views apart from the augmented ones, where those are in 8-bit integers."""
        if self._int8 is None:
            return [jobs]
        plain = [Job(job.photo, (0,)) for job in jobs if 0 in job.views]
        augmented = [Job(job.photo, tuple(view for view in job.views if view)) for job in jobs if any(job.views)]
        return [some for some in (plain, augmented) if some]

    def _in_int8(self, view: int) -> bool:
        return self._int8 is not None and view > 0

    def _engine(self, boundaries: tuple[int, ...], int8: bool) -> Engine:
        # Those of one call at a time: a compiled network takes room, and boundaries are not gone back to.
        if self._open[0] != boundaries:
            self._open = boundaries, {}
        engines = self._open[1]
        if int8 not in engines:
            how, reached = None, boundaries
            if int8 and self._int8 is not None:
                # The network to all boundaries is quantised once, and cut.
                reached, jobs = self._int8.boundaries, [Job(photo, (1,)) for photo in self._int8.photos]
                outputs = tuple(reached.index(boundary) for boundary in boundaries)
                how = Int8(self._int8.digest, lambda: self._pixels_of(jobs, len(jobs)), outputs)
            frozen = InFloat16(ActivationsAt(self._network, reached, self.preprocessing))
            engines[int8] = open_engine(self.choice, frozen, self.preprocessing.image_size, self.cache, how)
        return engines[int8]

    def _key(self, digest: str, view: int) -> bytes:
        if view == 0:
            return row_key(digest, "0")
        ranges = f":int8:{self._int8.digest}" if self._int8 else ""
        return row_key(digest, f"{view}:{self._drawing.augmentation}:{self._drawing.seed}{ranges}")

    def _missing(self, photos: Sequence[Photo], views: range, boundaries: tuple[int, ...]) -> list[Job]:
        """List what to compute; photos with the same bytes are computed once."""
        seen: set[str] = set()
        distinct: list[Photo] = []
        for photo in photos:
            if photo.digest not in seen:
                seen.add(photo.digest)
                distinct.append(photo)
        del seen
        lacking = np.zeros((len(distinct), len(views)), bool)
        for column, view in enumerate(views):
            keys = [self._key(photo.digest, view) for photo in distinct]
            lacking[:, column] = not boundaries  # what is not stored is decoded
            for boundary in boundaries:
                lacking[:, column] |= ~self.shelf(boundary).has(keys)
        return [
            Job(photo, tuple(view for view, lacks in zip(views, row, strict=True) if lacks))
            for photo, row in zip(distinct, lacking, strict=True)
            if row.any()
        ]

    def _drawn(self, jobs: list[Job], among: int) -> Iterator[Drawn]:
        return spread(jobs, self._drawing.draw, among)

    def _images(
        self, jobs: list[Job], unreadable: dict[str, str], advance: Callable[[int], None], among: int
    ) -> Iterator[tuple[bytes, Pixels]]:
        for drawn in self._drawn(jobs, among):
            photo = drawn.job.photo
            self._decoding_seconds += drawn.seconds
            if drawn.problem:
                unreadable[photo.digest] = drawn.problem
                advance(len(drawn.job.views))
                continue
            for view, pixels in zip(drawn.job.views, drawn.pixels, strict=True):
                yield self._key(photo.digest, view), pixels

    def _pixels_of(self, jobs: Sequence[Job], among: int) -> Pixels:
        """Return the views of photos that could be read before, as (n, image_size, image_size, 3)."""
        found = all_of(jobs, self._drawing.draw, among)
        for drawn in found:
            if drawn.problem:
                raise HeadstartError(
                    f"{self._drawing.root / drawn.job.photo.name}: cannot be read any more: {drawn.problem}.",
                    "Photos must stay where they are during training; run the same command again.",
                )
        return np.stack([pixels for drawn in found for pixels in drawn.pixels])
