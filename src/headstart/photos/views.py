"""The preprocessing record, and the evaluation view of a photo that it defines."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from headstart.choices import ResizePolicy

Pixels = npt.NDArray[np.uint8]

# Enters the key of every stored activation: raise it when a change here or in `augmentation.py` alters a view.
VIEWS_VERSION = 4

# The share of the short side that survives the centre crop, as ImageNet models are evaluated.
CROP_FRACTION = 0.875


class Preprocessing(BaseModel):
    """How a photo becomes the network's input; travels with the weights and is read by every use of them.

    `mean` and `std` are per channel, in units of 0-255 pixels: the network sees `(pixels - mean) / std`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(ge=32, le=1024)
    resize_policy: ResizePolicy = "crop"
    interpolation: Literal["bicubic"] = "bicubic"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def decode_short_side(self) -> int:
        """The short side below which a JPEG is not reduced while decoding, in pixels.

        A quarter more than the resized short side: enough for the bicubic filter, and a 12-megapixel photo
        (3,000 pixels high) is still read at 1/8.
        """
        return math.ceil(1.25 * self.image_size / CROP_FRACTION)


def evaluation_view(photo: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """Resize a photo by the record's policy, without randomness.

    Returns:
        (image_size, image_size, 3) uint8, RGB in 0-255.
    """
    size = preprocessing.image_size
    width, height = photo.size
    if preprocessing.resize_policy == "letterbox":
        scale = size / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        red, green, blue = (round(value) for value in preprocessing.mean)
        canvas = Image.new("RGB", (size, size), (red, green, blue))
        canvas.paste(resize(photo, inner), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return np.asarray(canvas)
    if preprocessing.resize_policy == "squash":
        return np.asarray(resize(photo, (size, size)))
    # Cropping first and resizing once gives what resizing the short side to size/0.875 and cropping gives.
    side = CROP_FRACTION * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return np.asarray(resize(photo, (size, size), (left, top, left + side, top + side)))


def resize(
    photo: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Resize a photo, or the box (left, top, right, bottom) of it, to (width, height) in pixels.

    First across, then down: Pillow rounds to 8 bits in between, and in which order it goes by itself depends on its
    version and on the shape of the photo. Exported classifiers do the same (`export/graph.py`).
    """
    if photo.size == size and box is None:
        return photo
    left, top, right, bottom = box or (0, 0, *photo.size)
    # Only the rows that the filter, two of the larger pixels to either side, reaches.
    reach = 2 * max(1.0, (bottom - top) / size[1]) + 1
    first, last = max(0, math.floor(top - reach)), min(photo.height, math.ceil(bottom + reach))
    rows = photo if last - first == photo.height else photo.crop((0, first, photo.width, last))
    across = rows.resize((size[0], rows.height), Image.Resampling.BICUBIC, (left, 0, right, rows.height))
    return across.resize(size, Image.Resampling.BICUBIC, (0, top - first, size[0], bottom - first))
