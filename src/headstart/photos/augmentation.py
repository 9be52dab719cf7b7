"""The augmented views of a photo, drawn by a named policy.

View 0 is the evaluation view. Views 1, 2, ... are augmented; each is drawn from a seed made of the recipe's
seed, the photo's digest and the view's index, so that it depends on no order, worker or restart. Every random
number comes from that view's own generator, because views are made in threads.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from headstart.choices import Augmentation
from headstart.photos.views import Pixels, Preprocessing, evaluation_view, resize

_Policy = Callable[[Image.Image, Preprocessing, random.Random], Image.Image]


def augmented_view(
    photo: Image.Image, preprocessing: Preprocessing, augmentation: Augmentation, seed: int, digest: str, view: int
) -> Pixels:
    """Draw augmented view number `view` (1 or more) of the photo with this digest.

    - `none`: the evaluation view.
    - `example`: the evaluation view with the rotation (up to 0.15 of a turn) and the flips (left to right, top
      to bottom) of the Keras example "Image classification via fine-tuning with EfficientNet".
    - `example-full`: the same with translation by up to 0.3 of the side and contrast changed by up to 10%.
    - `photo`: random resized crop (Szegedy et al., 2015) of 50 to 100% of the area, horizontal flip, rotation
      by up to 10 degrees, brightness, contrast and saturation by up to 20%.
    - `strong`: the same crop and flip, then one operation of TrivialAugment's wide set (Müller and Hutter, 2021).

    Returns:
        (image_size, image_size, 3) uint8, RGB in 0-255.
    """
    if augmentation == "none":
        return evaluation_view(photo, preprocessing)
    draw = random.Random(hashlib.sha256(f"{seed}:{digest}:{view}".encode()).digest())
    return np.asarray(_POLICIES[augmentation](photo, preprocessing, draw))


def _photo(photo: Image.Image, preprocessing: Preprocessing, draw: random.Random) -> Image.Image:
    crop = _random_crop(photo, preprocessing, draw)
    image = _rotated_crop(photo, crop, preprocessing.image_size, draw.uniform(-10, 10), _fill(preprocessing))
    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    draw.shuffle(enhancers)
    for enhancer in enhancers:
        image = enhancer(image).enhance(draw.uniform(0.8, 1.2))
    return image


def _example(photo: Image.Image, preprocessing: Preprocessing, draw: random.Random) -> Image.Image:
    image = Image.fromarray(evaluation_view(photo, preprocessing))
    return _flipped(_rotated(image, draw), draw)


def _example_full(photo: Image.Image, preprocessing: Preprocessing, draw: random.Random) -> Image.Image:
    image = Image.fromarray(evaluation_view(photo, preprocessing))
    image = _flipped(_translated(_rotated(image, draw), draw), draw)
    return ImageEnhance.Contrast(image).enhance(draw.uniform(0.9, 1.1))


def _strong(photo: Image.Image, preprocessing: Preprocessing, draw: random.Random) -> Image.Image:
    # Without a rotation, resizing the crop alone takes a quarter of the time.
    image = _resized(photo, _random_crop(photo, preprocessing, draw), preprocessing.image_size)
    return _trivial_augment(image, _fill(preprocessing), draw)


_POLICIES: dict[Augmentation, _Policy] = {
    "example": _example,
    "example-full": _example_full,
    "photo": _photo,
    "strong": _strong,
}


def _rotated(image: Image.Image, draw: random.Random) -> Image.Image:
    """Rotate a square by up to 0.15 of a turn either way, its corners filled by reflection as Keras does."""
    # The corners reach furthest at an eighth of a turn: (sqrt(2) - 1) / 2 of the side beyond the edge.
    margin = math.ceil(0.21 * image.width)
    turned = _reflected(image, margin).rotate(360 * draw.uniform(-0.15, 0.15), Image.Resampling.BILINEAR)
    return turned.crop((margin, margin, margin + image.width, margin + image.height))


def _translated(image: Image.Image, draw: random.Random) -> Image.Image:
    """Move a square by up to 0.3 of its side in both directions, the rest filled by reflection."""
    most = round(0.3 * image.width)
    left, top = draw.randint(0, 2 * most), draw.randint(0, 2 * most)
    return _reflected(image, most).crop((left, top, left + image.width, top + image.height))


def _reflected(image: Image.Image, margin: int) -> Image.Image:
    """Return an image with a margin in which it is reflected."""
    sides = (margin, margin)
    return Image.fromarray(np.pad(np.asarray(image), (sides, sides, (0, 0)), mode="symmetric"))


def _flipped(image: Image.Image, draw: random.Random) -> Image.Image:
    """Flip left to right half of the times, and top to bottom half of the times."""
    for flip in (ImageOps.mirror, ImageOps.flip):
        if draw.random() < 0.5:
            image = flip(image)
    return image


def _trivial_augment(image: Image.Image, fill: tuple[int, ...], draw: random.Random) -> Image.Image:
    """Apply one of 14 operations with one of 31 strengths, in the ranges of TrivialAugment's wide set.

    The paper moves photos of 224 pixels by up to 32; here it is that share of any size.
    """
    strength = draw.randrange(31) / 30
    signed = strength if draw.random() < 0.5 else -strength

    def moved(across: tuple[float, float, float], down: tuple[float, float, float]) -> Image.Image:
        # Slants start from the top left corner, as in the paper's own code.
        how = Image.Resampling.BILINEAR
        return image.transform(image.size, Image.Transform.AFFINE, (*across, *down), how, fillcolor=fill)

    slant, shift, factor = 0.99 * signed, round(signed * image.width / 7), 1 + 0.99 * signed
    operations: list[Callable[[], Image.Image]] = [
        lambda: image,
        lambda: moved((1, slant, 0), (0, 1, 0)),
        lambda: moved((1, 0, 0), (slant, 1, 0)),
        lambda: moved((1, 0, -shift), (0, 1, 0)),
        lambda: moved((1, 0, 0), (0, 1, -shift)),
        lambda: image.rotate(135 * signed, Image.Resampling.BILINEAR, fillcolor=fill),
        lambda: ImageEnhance.Brightness(image).enhance(factor),
        lambda: ImageEnhance.Contrast(image).enhance(factor),
        lambda: ImageEnhance.Color(image).enhance(factor),
        lambda: ImageEnhance.Sharpness(image).enhance(factor),
        lambda: ImageOps.posterize(image, 8 - round(6 * strength)),
        lambda: ImageOps.solarize(image, math.ceil(255 * (1 - strength))),
        lambda: ImageOps.autocontrast(image),
        lambda: ImageOps.equalize(image),
    ]
    return draw.choice(operations)()


@dataclass(frozen=True, slots=True)
class _Crop:
    """A part of a photo, by its centre and its width and height in pixels, and whether it is mirrored."""

    centre: tuple[float, float]
    width: float
    height: float
    mirrored: bool


def _random_crop(photo: Image.Image, preprocessing: Preprocessing, draw: random.Random) -> _Crop:
    """Draw 50 to 100% of the photo's area, 3:4 to 4:3 in shape, mirrored half of the times."""
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
    return _Crop((centre_x, centre_y), crop_width, crop_height, draw.random() < 0.5)


def _resized(photo: Image.Image, crop: _Crop, size: int) -> Image.Image:
    """Resize a crop to a square."""
    (x, y), half_width, half_height = crop.centre, crop.width / 2, crop.height / 2
    # A centre as far as it goes may put an edge beyond the photo's by a rounding error.
    left, top = max(0.0, x - half_width), max(0.0, y - half_height)
    right, bottom = min(photo.width, x + half_width), min(photo.height, y + half_height)
    image = resize(photo, (size, size), (left, top, right, bottom))
    return ImageOps.mirror(image) if crop.mirrored else image


def _rotated_crop(photo: Image.Image, crop: _Crop, size: int, degrees: float, fill: tuple[int, ...]) -> Image.Image:
    """Rotate a crop about its centre and resize it to a square, at once, after an antialiased resize of the photo."""
    # A long thin crop would enlarge the rest of an extreme panorama without bound, hence the limit.
    scale_x, scale_y = min(size / crop.width, 8 * size / photo.width), min(size / crop.height, 8 * size / photo.height)
    resized = resize(photo, (max(1, round(photo.width * scale_x)), max(1, round(photo.height * scale_y))))
    angle = math.radians(degrees)
    # Output (x, y) -> input: centre the output, mirror, scale to the crop, rotate, move to the crop's centre.
    stretch_x = (-1 if crop.mirrored else 1) * crop.width * resized.width / photo.width / size
    stretch_y = crop.height * resized.height / photo.height / size
    a, b = math.cos(angle) * stretch_x, -math.sin(angle) * stretch_y
    d, e = math.sin(angle) * stretch_x, math.cos(angle) * stretch_y
    c = crop.centre[0] * resized.width / photo.width - (a + b) * size / 2
    f = crop.centre[1] * resized.height / photo.height - (d + e) * size / 2
    how = Image.Resampling.BICUBIC
    return resized.transform((size, size), Image.Transform.AFFINE, (a, b, c, d, e, f), how, fillcolor=fill)


def _fill(preprocessing: Preprocessing) -> tuple[int, ...]:
    """Return the mean colour, for what lies outside the photo."""
    return tuple(round(value) for value in preprocessing.mean)
