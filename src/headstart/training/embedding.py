"""Embedding: the frozen prefix over every photo and view, kept in the activation store.

At boundary 0 there is no prefix: pixels are not stored but decoded anew, with a new augmented view in each epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from torch import nn

from headstart.console import Console
from headstart.errors import HeadstartError, PhotoError
from headstart.network.cut import ActivationsAt, InFloat16, last_boundary
from headstart.photos.augmentation import Augmentation, augmented_view
from headstart.photos.catalog import no_problems, problem_table
from headstart.photos.decode import DECODER_VERSION, decode, read_bytes
from headstart.photos.loading import ahead, batched
from headstart.photos.views import VIEWS_VERSION, Pixels, Preprocessing, evaluation_view
from headstart.training.engines import Engine, EngineChoice, open_engine
from headstart.training.hardware import num_processes
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
        boundaries: in rising order; those above 0 are stored.
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
        self.boundaries = boundaries
        stored = tuple(boundary for boundary in boundaries if boundary > 0)
        self._frozen = copy.deepcopy(ActivationsAt(network, stored, preprocessing))
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
            for boundary, output in zip(stored, outputs, strict=True)
        }
        self.features_boundary = last_boundary(network)

    def embed(self, photos: Sequence[Photo], views: range, console: Console, label: str) -> tuple[pd.DataFrame, int]:
        """Compute what is missing of these views of these photos; where nothing is stored, only see to be able to.

        Returns:
            The photos that could not be read (path, problem, detail), and how many views were computed.
        """
        if num_processes() > 1:
            for shelf in self.shelves.values():
                shelf.refresh()  # the first process may have embedded them meanwhile
        jobs = self._missing(photos, views)
        if not jobs:
            return no_problems(), 0
        total = sum(len(job.views) for job in jobs)
        unreadable: dict[str, str] = {}
        with console.progress(label, total) as advance:
            images = self._images(jobs, unreadable, advance)
            if self.shelves:
                self._store(images, advance)
            else:
                for _ in images:
                    advance(1)
        computed = total - sum(len(job.views) for job in jobs if job.photo.digest in unreadable)
        named = [(photo.name, "unreadable", unreadable[photo.digest]) for photo in photos if photo.digest in unreadable]
        return problem_table(named), computed

    def rows(self, photos: Sequence[Photo], view: int, boundary: int) -> StoredRows | PixelRows:
        """Return one view's activations of photos that were embedded, in their order."""
        if boundary == 0:
            return PixelRows(photos, view, self._pixels)
        return self._stored(photos, view, boundary)

    def features(self, photos: Sequence[Photo], view: int) -> StoredRows:
        """Return one view's (n, num_features) pooled features of photos that were embedded."""
        return self._stored(photos, view, self.features_boundary)

    def fresh_views(self, photos: Sequence[Photo]) -> FreshViews:
        """Return photos' pixels in a new augmented view for each epoch."""
        return FreshViews(photos, self._pixels)

    def _stored(self, photos: Sequence[Photo], view: int, boundary: int) -> StoredRows:
        return self.shelves[boundary].rows([self._key(photo.digest, view) for photo in photos])

    def _store(self, images: Iterator[tuple[bytes, Pixels]], advance: Callable[[int], None]) -> None:
        if self._engine is None:
            size = self._preprocessing.image_size
            self._engine = open_engine(self._choice, InFloat16(self._frozen), size, self._cache)
        with ExitStack() as stack:
            writers = [stack.enter_context(shelf.writer()) for shelf in self.shelves.values()]
            for keys, outputs in self._engine.run(batched(images, self._engine.batch_size)):
                for writer, rows in zip(writers, outputs, strict=True):
                    writer.append(keys, rows)
                advance(len(keys))

    def _key(self, digest: str, view: int) -> bytes:
        augmented = f"{view}:{self._augmentation}:{self._seed}" if view else "0"
        return row_key(digest, augmented)

    def _missing(self, photos: Sequence[Photo], views: range) -> list[_Job]:
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
            lacking[:, column] = not self.shelves  # what is not stored is decoded
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
            photo = self._decode(job.photo)
        except PhotoError as error:
            return job, error
        return job, [self._view(photo, job.photo.digest, view) for view in job.views]

    def _pixels(self, photo: Photo, view: int) -> Pixels:
        """Return one view of a photo that could be read before."""
        try:
            return self._view(self._decode(photo), photo.digest, view)
        except PhotoError as error:
            raise HeadstartError(
                f"{self._root / photo.name}: cannot be read any more: {error.problem}.",
                "Photos must stay where they are during training; run the same command again.",
            ) from None

    def _decode(self, photo: Photo) -> Image.Image:
        return decode(read_bytes(self._root / photo.name), self._preprocessing.decode_short_side)

    def _view(self, photo: Image.Image, digest: str, view: int) -> Pixels:
        if view == 0:
            return evaluation_view(photo, self._preprocessing)
        return augmented_view(photo, self._preprocessing, self._augmentation, self._seed, digest, view)


class PixelRows:
    """One view of photos as rows of pixels, decoded at every use."""

    def __init__(self, photos: Sequence[Photo], view: int, pixels: Callable[[Photo, int], Pixels]) -> None:
        self._photos = photos
        self._view = view
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._photos)

    def take(self, indices: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.uint8]:
        """Return (n, 3, image_size, image_size) uint8, RGB in 0-255."""
        chosen = np.arange(len(self._photos))[indices]
        images = np.stack([self._pixels(self._photos[number], self._view) for number in chosen])
        return images.transpose(0, 3, 1, 2)


class FreshViews:
    """Training photos as pixels, in another augmented view in each epoch: the view of the epoch's number."""

    def __init__(self, photos: Sequence[Photo], pixels: Callable[[Photo, int], Pixels]) -> None:
        self._photos = photos
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._photos)

    def draw_views(self, epoch: int, draw: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return the epoch's view for every photo; epochs count from 0, and view 0 is for evaluation."""
        return np.full(len(self._photos), epoch + 1)

    def take(self, photos: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return (n, 3, image_size, image_size) float32, RGB in 0-255."""
        images = np.stack(
            [self._pixels(self._photos[number], int(view)) for number, view in zip(photos, views, strict=True)]
        )
        return torch.from_numpy(images).permute(0, 3, 1, 2).float()
