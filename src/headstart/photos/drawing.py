"""Drawing the views of photos: from a file to pixels. Other processes can do it, because it is data and no more."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from headstart.choices import Augmentation
from headstart.errors import PhotoError
from headstart.photos.augmentation import augmented_view
from headstart.photos.decode import decode, read_bytes
from headstart.photos.views import Pixels, Preprocessing, evaluation_view


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo to embed: its path below the catalog's root, and the digest of its bytes."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Job:
    """Views of a photo that are wanted; 0 is the evaluation view."""

    photo: Photo
    views: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A job with its views' pixels, or none and why the photo cannot be read; and the seconds that it took."""

    job: Job
    pixels: list[Pixels]
    problem: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the views of photos in a folder are drawn: the policy of views 1 and up, with `seed`, and preprocessing."""

    root: Path
    preprocessing: Preprocessing
    augmentation: Augmentation
    seed: int

    def draw(self, job: Job) -> Drawn:
        """Decode a photo once and draw its views."""
        started, pixels, problem = time.perf_counter(), list[Pixels](), ""
        try:
            photo = decode(read_bytes(self.root / job.photo.name), self.preprocessing.decode_short_side)
            pixels = [self._view(photo, job.photo.digest, view) for view in job.views]
        except PhotoError as error:
            problem = error.problem
        return Drawn(job, pixels, problem, time.perf_counter() - started)

    def _view(self, photo: Image.Image, digest: str, view: int) -> Pixels:
        if view == 0:
            return evaluation_view(photo, self.preprocessing)
        return augmented_view(photo, self.preprocessing, self.augmentation, self.seed, digest, view)


def seen(path: str | Path, preprocessing: Preprocessing) -> tuple[str, Pixels | str]:
    """Return a photo's path with the view of it that a classifier sees, or with why it cannot be read."""
    try:
        photo = decode(read_bytes(path), preprocessing.decode_short_side)
        return str(path), evaluation_view(photo, preprocessing)
    except PhotoError as error:
        return str(path), error.problem
