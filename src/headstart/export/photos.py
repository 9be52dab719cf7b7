"""The labelled photos that an export is compared and measured on: those of the classifier's own run, or others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from headstart.cache import cache_folder
from headstart.classifier import Classifier
from headstart.console import Console
from headstart.errors import HeadstartError, PhotoError, listed
from headstart.photos.datasets import read_photos
from headstart.photos.decode import decode, read_bytes
from headstart.photos.loading import ahead
from headstart.photos.views import Pixels
from headstart.recipe import Recipe
from headstart.run_folder import photos_of_run, run_beside

# Enough to see a difference by; PyTorch alone takes seconds for them.
MOST_PHOTOS = 500
_SEED = 0


@dataclass(frozen=True)
class Labelled:
    """Photos (each (height, width, 3) uint8 RGB, decoded as the classifier does) and their (n,) class indices.

    `learnt_from` says whether the classifier was fitted on them; None where that is not known.
    """

    photos: list[Pixels]
    labels: npt.NDArray[np.int64]
    learnt_from: bool | None = None

    def __len__(self) -> int:
        return len(self.photos)


@dataclass(frozen=True)
class PhotoTable:
    """Where photos lie (path, label, split), what they are called, and by which splits the classifier was fitted.

    `learnt_from` is None where that is not known.
    """

    table: pd.DataFrame
    told: str
    learnt_from: tuple[str, ...] | None = None

    def of(self, split: str, classifier: Classifier, most: int = MOST_PHOTOS) -> Labelled:
        """Read at most so many photos of a split, drawn evenly; files that cannot be read are passed over."""
        rows = self.table[self.table["split"] == split]
        if len(rows) > most:
            rows = rows.sample(most, random_state=_SEED).sort_index()
        index = {name: number for number, name in enumerate(classifier.class_names)}
        photos: list[Pixels] = []
        labels: list[int] = []
        short_side = classifier.preprocessing.decode_short_side
        decoded = ahead(rows["path"], lambda path: _decoded(path, short_side))
        for label, pixels in zip(rows["label"], decoded, strict=True):
            if pixels is not None:
                photos.append(pixels)
                labels.append(index[label])
        learnt_from = None if self.learnt_from is None else split in self.learnt_from
        return Labelled(photos, np.array(labels, np.int64), learnt_from)


def _decoded(path: str, short_side: int) -> Pixels | None:
    try:
        return np.asarray(decode(read_bytes(path), short_side))
    except PhotoError:
        return None


def photos_to_compare(classifier: Classifier, folder: Path, given: str | None, console: Console) -> PhotoTable | None:
    """Find the photos to compare an export on.

    Args:
        classifier: loaded.
        folder: where it was loaded from: a run folder or the classifier in it.
        given: labelled photos, as for `read_photos`; None for those of the run.
        console: where to print what is downloaded.

    Returns:
        The photos with the splits `train` and `validation`, some of each; None where the run's are not here.

    Raises:
        HeadstartError: when those given have a class that the classifier does not know.
    """
    if given is not None:
        return _given(classifier, given, console)
    run = run_beside(folder)
    if run is None:
        return None
    try:
        table = photos_of_run(run, cache_folder(), console)
    except HeadstartError:
        return None
    here = table[[Path(path).is_file() for path in table["path"]]]
    here = here[here["label"].isin(classifier.class_names)]
    both = {"train", "validation"} <= set(here["split"])
    # Classifiers of before this was recorded were refitted wherever the recipe said so.
    refitted = classifier.training["kept"].get("refitted", Recipe.read(run.recipe).refits)
    learnt_from = ("train", "validation") if refitted else ("train",)
    return PhotoTable(here, "validation photos", learnt_from) if both else None


def _given(classifier: Classifier, given: str, console: Console) -> PhotoTable:
    catalog = read_photos(given, cache_folder(), console, least_classes=1)
    unknown = [name for name in catalog.class_names if name not in classifier.class_names]
    if unknown:
        raise HeadstartError(
            f"--photos {given}: has classes that the classifier does not know: {listed(unknown)}.",
            "Name the folders as the classifier's classes.",
        )
    table = catalog.photos.assign(path=[str(catalog.root / path) for path in catalog.photos["path"]])
    if not (table["split"] == "validation").any():
        # Not split: every second photo of a class to compare on, the others to set an int8 model's ranges by.
        second = table.groupby("label").cumcount() % 2 == 0
        table["split"] = np.where(second, "validation", "train")
    return PhotoTable(table, f"photos of {given}")
