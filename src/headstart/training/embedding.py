"""Embedding: the frozen prefix over every photo and view, kept in the activation store."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from headstart.console import Console
from headstart.errors import PhotoError
from headstart.network.cut import ActivationsAt, last_boundary
from headstart.photos.augmentation import Augmentation, augmented_view
from headstart.photos.catalog import no_problems, problem_table
from headstart.photos.decode import DECODER_VERSION, decode, read_bytes
from headstart.photos.loading import ahead, batched
from headstart.photos.views import VIEWS_VERSION, Pixels, Preprocessing, evaluation_view
from headstart.training.engines import Engine, EngineChoice, open_engine
from headstart.training.store import Shelf, StoredRows, row_key


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo to embed: its path below the catalog's root, and the digest of its bytes."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class _Job:
    photo: Photo
    views: tuple[int, ...]


class Embedder:
    """Computes activations of photos at some boundaries, each once, and reads them back.

    Args:
        root: the folder that photos' names are relative to.
        network: the frozen network; copied, so that it may be trained afterwards.
        identity: what names the network and its weights in the store's keys.
        boundaries: in rising order, ending with the pooled features' boundary.
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
        boundaries: tuple[int, ...],
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        seed: int,
        choice: EngineChoice,
        cache: Path,
    ) -> None:
        self._root = root
        self._preprocessing = preprocessing
        self._augmentation: Augmentation = augmentation
        self._seed = seed
        self._cache = cache
        self._choice = choice
        self._frozen = copy.deepcopy(ActivationsAt(network, boundaries, preprocessing))
        self._engine: Engine | None = None
        kind: dict[str, Any] = {
            **identity,
            "preprocessing": preprocessing.model_dump(mode="json"),
            "engine": choice.name,
            "precision": choice.precision,
            "versions": [DECODER_VERSION, VIEWS_VERSION],
        }
        size = preprocessing.image_size
        with torch.inference_mode():
            outputs = self._frozen(torch.zeros(1, 3, size, size))
        self.shelves = {
            boundary: Shelf(cache / "activations", {**kind, "boundary": boundary}, output.shape[1:])
            for boundary, output in zip(boundaries, outputs, strict=True)
        }
        self.features_boundary = last_boundary(network)

    def embed(self, photos: Sequence[Photo], views: range, console: Console, label: str) -> tuple[pd.DataFrame, int]:
        """Compute what is missing of these views of these photos.

        Returns:
            The photos that could not be read (path, problem, detail), and how many views were computed.
        """
        jobs = self._missing(photos, views)
        if not jobs:
            return no_problems(), 0
        total = sum(len(job.views) for job in jobs)
        unreadable: dict[str, str] = {}
        if self._engine is None:
            size = self._preprocessing.image_size
            self._engine = open_engine(self._choice, self._frozen, size, self._cache)
        with ExitStack() as stack:
            writers = [stack.enter_context(shelf.writer()) for shelf in self.shelves.values()]
            advance = stack.enter_context(console.progress(label, total))
            images = self._images(jobs, unreadable, advance)
            for keys, outputs in self._engine.run(batched(images, self._engine.batch_size)):
                for writer, rows in zip(writers, outputs, strict=True):
                    writer.append(keys, rows)
                advance(len(keys))
        computed = total - sum(len(job.views) for job in jobs if job.photo.digest in unreadable)
        named = [(photo.name, "unreadable", unreadable[photo.digest]) for photo in photos if photo.digest in unreadable]
        return problem_table(named), computed

    def rows(self, photos: Sequence[Photo], view: int, boundary: int) -> StoredRows:
        """Return one view's activations of photos that were embedded, in their order."""
        return self.shelves[boundary].rows([self._key(photo.digest, view) for photo in photos])

    def _key(self, digest: str, view: int) -> bytes:
        augmented = f"{view}:{self._augmentation}:{self._seed}" if view else "0"
        return row_key(digest, augmented)

    def _missing(self, photos: Sequence[Photo], views: range) -> list[_Job]:
        """List what to compute; photos with the same bytes are computed once."""
        first_of = {photo.digest: photo for photo in reversed(photos)}
        distinct = [photo for photo in photos if first_of[photo.digest] is photo]
        lacking = np.zeros((len(distinct), len(views)), bool)
        for column, view in enumerate(views):
            keys = [self._key(photo.digest, view) for photo in distinct]
            for shelf in self.shelves.values():
                lacking[:, column] |= ~shelf.has(keys)
        return [
            _Job(photo, tuple(view for view, lacks in zip(views, row, strict=True) if lacks))
            for photo, row in zip(distinct, lacking, strict=True)
            if row.any()
        ]

    def _images(
        self, jobs: list[_Job], unreadable: dict[str, str], advance: Callable[[int], None]
    ) -> Iterator[tuple[bytes, Pixels]]:
        for job, result in ahead(jobs, self._prepare):
            if isinstance(result, PhotoError):
                unreadable[job.photo.digest] = result.problem
                advance(len(job.views))
                continue
            for view, pixels in zip(job.views, result, strict=True):
                yield self._key(job.photo.digest, view), pixels

    def _prepare(self, job: _Job) -> tuple[_Job, list[Pixels] | PhotoError]:
        try:
            photo = decode(read_bytes(self._root / job.photo.name), self._preprocessing.decode_short_side)
        except PhotoError as error:
            return job, error
        return job, [
            augmented_view(photo, self._preprocessing, self._augmentation, self._seed, job.photo.digest, view)
            if view
            else evaluation_view(photo, self._preprocessing)
            for view in job.views
        ]
