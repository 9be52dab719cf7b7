"""Photos as rows of pixels, for training at boundary 0: decoded at every use, and never stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from headstart.photos.drawing import Job, Photo
from headstart.photos.views import Pixels

# What training draws at once: views of photos, among so many that are drawn in all.
PixelsOf = Callable[[Sequence[Job], int], Pixels]
# Epochs at least that training takes from pixels, for which processes may pay where one alone would not.
_EPOCHS = 4


class PixelRows:
    """One view of photos as rows of pixels, decoded at every use."""

    def __init__(self, photos: Sequence[Photo], view: int, pixels_of: PixelsOf) -> None:
        self._photos = photos
        self._view = view
        self._pixels_of = pixels_of

    def __len__(self) -> int:
        return len(self._photos)

    def take(self, indices: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.uint8]:
        """Return (n, 3, image_size, image_size) uint8, RGB in 0-255."""
        chosen = np.arange(len(self._photos))[indices]
        jobs = [Job(self._photos[number], (self._view,)) for number in chosen]
        return self._pixels_of(jobs, _EPOCHS * len(self._photos)).transpose(0, 3, 1, 2)


class FreshViews:
    """Training photos as pixels, in another augmented view in each epoch: the view of the epoch's number."""

    def __init__(self, photos: Sequence[Photo], pixels_of: PixelsOf) -> None:
        self._photos = photos
        self._pixels_of = pixels_of

    def __len__(self) -> int:
        return len(self._photos)

    def draw_views(self, epoch: int, draw: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return the epoch's view for every photo; epochs count from 0, and view 0 is for evaluation."""
        return np.full(len(self._photos), epoch + 1)

    def take(self, photos: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return (n, 3, image_size, image_size) float32, RGB in 0-255."""
        jobs = [Job(self._photos[number], (int(view),)) for number, view in zip(photos, views, strict=True)]
        pixels = self._pixels_of(jobs, _EPOCHS * len(self._photos))
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
