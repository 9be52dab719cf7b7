"""What training works on: the photos of each split, and what the store holds of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from headstart.network.backbones import Normalise
from headstart.network.cut import last_boundary, pooled
from headstart.photos.catalog import Catalog
from headstart.photos.drawing import Photo
from headstart.photos.split import SPLITS
from headstart.training.embedding import Embedder
from headstart.training.finetuning import Rows, TrainingRows, ViewRows, suffix_outputs
from headstart.training.probe import Floats, Labels
from headstart.training.store import StoredRows

LEARNING = "train and validation"
# Of a part of the training photos, at least so many are of each class, where there are.
_LEAST_OF_A_PART = 10
_ROWS_AT_ONCE = 512


def photos_of(table: pd.DataFrame) -> list[Photo]:
    """Return the photos of a catalog's rows."""
    return [Photo(path, digest) for path, digest in zip(table["path"], table["digest"], strict=True)]


class TrainingData:
    """The photos of each split with their labels as indices, and what the store holds of them.

    `LEARNING` stands for training and validation photos together, on which the chosen classifier is fitted again.
    """

    def __init__(self, catalog: Catalog, embedder: Embedder) -> None:
        self.class_names = catalog.class_names
        self.embedder = embedder
        # What a checkpoint belongs to: these photos in this split.
        self.digest = catalog.digest
        index = {name: number for number, name in enumerate(catalog.class_names)}
        self.photos: dict[str, list[Photo]] = {}
        self.labels: dict[str, Labels] = {}
        for split in SPLITS:
            table = catalog.photos[catalog.photos["split"] == split]
            self.photos[split] = photos_of(table)
            self.labels[split] = np.array([index[name] for name in table["label"]], np.int64)
        self._join()
        self._sized = {self.image_size: self}
        # Of a part: all photos, and which of the validation photos are in it.
        self._whole: TrainingData | None = None
        self.validation_rows = np.arange(len(self.photos["validation"]))

    def _join(self) -> None:
        """Put training and validation photos together."""
        self.photos[LEARNING] = self.photos["train"] + self.photos["validation"]
        self.labels[LEARNING] = np.concatenate([self.labels["train"], self.labels["validation"]])

    @property
    def image_size(self) -> int:
        """The size that photos are seen at, in pixels."""
        return self.embedder.preprocessing.image_size

    @property
    def sizes(self) -> list[TrainingData]:
        """These photos, and the same at every other size that they were asked for at."""
        return list(self._sized.values())

    def at(self, image_size: int | None) -> TrainingData:
        """Return the same photos seen at another size; None for this one."""
        size = image_size or self.image_size
        if size not in self._sized:
            other = copy.copy(self)
            other.embedder = self.embedder.at(size)
            self._sized[size] = other
        return self._sized[size]

    @property
    def whole(self) -> TrainingData:
        """All photos, where these are a part of them."""
        return self._whole or self

    def part(self, one_in: int) -> TrainingData:
        """Return a part of the training and validation photos: one in so many of each class.

        Of the training photos of a class at least ten are in it, or all. The test photos stay as they are.
        """
        if one_in == 1:
            return self
        other = copy.copy(self)
        rows = {"train": self.rows_of_part(one_in), "validation": _spaced(self.labels["validation"], one_in)}
        other.photos = self.photos | {split: [self.photos[split][row] for row in rows[split]] for split in rows}
        other.labels = self.labels | {split: self.labels[split][rows[split]] for split in rows}
        other._join()
        other.validation_rows, other._whole, other._sized = rows["validation"], self, {self.image_size: other}
        return other

    def rows_of_part(self, one_in: int) -> npt.NDArray[np.intp]:
        """Return the positions of the training photos that are in a part."""
        return _spaced(self.labels["train"], one_in, _LEAST_OF_A_PART)

    def features(self, split: str, num_views: int = 1) -> StoredRows:
        """Return the (num_views * n, num_features) pooled features of a split's photos, view after view."""
        return self.embedder.features(self.photos[split], range(num_views))

    def some_features(self, num_views: int, most_rows: int, split: str = "train") -> tuple[StoredRows, Labels]:
        """Return the pooled features of a split's photos and the labels of their rows; of very many, of a part.

        The part is an equal share of each class, at least one photo, so that there are about `most_rows` rows.
        """
        chosen = self.some_rows(most_rows, num_views, split)
        photos = [self.photos[split][row] for row in chosen]
        return self.embedder.features(photos, range(num_views)), np.tile(self.labels[split][chosen], num_views)

    def some_rows(self, most_rows: int, num_views: int = 1, split: str = "train") -> npt.NDArray[np.intp]:
        """Return the positions of a split's photos; of very many, of a part as `some_features` takes it."""
        labels = self.labels[split]
        return _spaced(labels, -(-len(labels) * num_views // most_rows))

    def feature_views(self, num_views: int) -> ViewRows:
        """Return the pooled features of the training photos, views apart."""
        return ViewRows([self.embedder.features(self.photos["train"], [view]) for view in range(num_views)])

    def activations(self, split: str, boundary: int, view: int = 0) -> Rows:
        """Return the activations of a split at a boundary; pixels at boundary 0."""
        return self.embedder.rows(self.photos[split], view, boundary)

    def training_rows(self, split: str, boundary: int, num_views: int) -> TrainingRows:
        """Return the views of a split's photos at a boundary: stored, or, of the pixels, new in each epoch."""
        if boundary == 0:
            return self.embedder.fresh_views(self.photos[split])
        return ViewRows([self.activations(split, boundary, view) for view in range(num_views)])


def _spaced(labels: Labels, every: int, least: int = 1) -> npt.NDArray[np.intp]:
    """Return the positions of every so many of each class's photos, but of `least` of a class, where there are."""
    classes = pd.Series(labels).groupby(labels)
    spacing = (classes.transform("size") // least).clip(1, every)
    return np.flatnonzero(classes.cumcount() % spacing == 0)


def pooled_features(network: nn.Module, boundary: int, data: TrainingData, photos: list[Photo]) -> Iterator[Floats]:
    """Yield the (n, num_features) pooled features of photos in turn, from their activations at a boundary."""
    rows = data.embedder.rows(photos, 0, boundary)
    if boundary == last_boundary(network):
        for start in range(0, len(photos), _ROWS_AT_ONCE):
            yield rows.take(slice(start, start + _ROWS_AT_ONCE)).astype(np.float32)
    else:
        normalised = (Normalise(data.embedder.preprocessing),) if boundary == 0 else ()
        last = nn.Sequential(*normalised, *pooled(network, boundary))
        yield from suffix_outputs(last.to(next(last.parameters()).device), rows)
