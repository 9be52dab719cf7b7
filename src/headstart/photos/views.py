"""The preprocessing record, and the views of a photo that it and an augmentation policy define.

View 0 is the evaluation view. Views 1, 2, ... are augmented; each is drawn from a seed made of the recipe's
seed, the photo's digest and the view's index, so that it depends on no order, worker or restart.
"""

from __future__ import annotations

import hashlib
import math
import random
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance
from pydantic import BaseModel, ConfigDict, Field

ResizePolicy = Literal["crop", "squash", "letterbox"]
Augmentation = Literal["none", "photo"]
Pixels = npt.NDArray[np.uint8]

# Enters the key of every stored activation: raise it when a change here alters a view.
VIEWS_VERSION = 1

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
        canvas.paste(_resize(photo, inner), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return np.asarray(canvas)
    if preprocessing.resize_policy == "squash":
        return np.asarray(_resize(photo, (size, size)))
    # Cropping first and resizing once gives what resizing the short side to size/0.875 and cropping gives.
    side = CROP_FRACTION * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return np.asarray(_resize(photo, (size, size), (left, top, left + side, top + side)))


def augmented_view(
    photo: Image.Image, preprocessing: Preprocessing, augmentation: Augmentation, seed: int, digest: str, view: int
) -> Pixels:
    """Draw augmented view number `view` (1 or more) of the photo with this digest.

    `photo` is: random resized crop (Szegedy et al., 2015) of 50 to 100% of the area, horizontal flip,
    rotation by up to 10 degrees, brightness, contrast and saturation by up to 20%.

    Returns:
        (image_size, image_size, 3) uint8, RGB in 0-255.
    """
    if augmentation == "none":
        return evaluation_view(photo, preprocessing)
    draw = random.Random(hashlib.sha256(f"{seed}:{digest}:{view}".encode()).digest())
    image = _random_resized_crop(photo, preprocessing, draw)
    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    draw.shuffle(enhancers)
    for enhancer in enhancers:
        image = enhancer(image).enhance(draw.uniform(0.8, 1.2))
    return np.asarray(image)


def _random_resized_crop(photo: Image.Image, preprocessing: Preprocessing, draw: random.Random) -> Image.Image:
    """Crop, rotate and flip in one resampling, after an antialiased resize of the photo to that scale."""
    size = preprocessing.image_size
    width, height = photo.size
    area = draw.uniform(0.5, 1.0) * width * height
    aspect = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
    if preprocessing.resize_policy == "squash":
        # The evaluation view has the photo's own aspect squeezed to a square, so the crop varies around that.
        aspect *= width / height
    crop_width = min(width, math.sqrt(area * aspect))
    crop_height = min(height, math.sqrt(area / aspect))
    centre_x = draw.uniform(crop_width / 2, width - crop_width / 2)
    centre_y = draw.uniform(crop_height / 2, height - crop_height / 2)
    # A long thin crop would enlarge the rest of an extreme panorama without bound, hence the limit.
    scale_x, scale_y = min(size / crop_width, 8 * size / width), min(size / crop_height, 8 * size / height)
    resized = _resize(photo, (max(1, round(width * scale_x)), max(1, round(height * scale_y))))
    angle = math.radians(draw.uniform(-10, 10))
    mirror = -1 if draw.random() < 0.5 else 1
    # Output (x, y) -> input: centre the output, mirror, scale to the crop, rotate, move to the crop's centre.
    stretch_x = mirror * crop_width * resized.width / width / size
    stretch_y = crop_height * resized.height / height / size
    a, b = math.cos(angle) * stretch_x, -math.sin(angle) * stretch_y
    d, e = math.sin(angle) * stretch_x, math.cos(angle) * stretch_y
    c = centre_x * resized.width / width - (a + b) * size / 2
    f = centre_y * resized.height / height - (d + e) * size / 2
    fill = tuple(round(value) for value in preprocessing.mean)
    return resized.transform(
        (size, size), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC, fillcolor=fill
    )


def _resize(
    photo: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    if photo.size == size and box is None:
        return photo
    return photo.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=3.0)
