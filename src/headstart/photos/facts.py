"""What one photo's file says about itself, and a few numbers of what it shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from headstart.errors import PhotoError
from headstart.photos.decode import decode_with_source, orientation, read_bytes

# Short side of the small image that everything is computed from. A JPEG is decoded at no more than it takes, and
# defects that vanish at this size vanish in training too.
THUMBNAIL_SIDE = 128
_HASH_SIDE = 32
# The lowest 8 x 8 frequencies of 32 samples (DCT-II).
_COSINES = np.cos(np.pi / _HASH_SIDE * (np.arange(_HASH_SIDE) + 0.5) * np.arange(8)[:, None]).astype(np.float32)
_EXIF_MAKE, _EXIF_MODEL, _EXIF_DATE, _EXIF_DETAILS, _EXIF_DATE_TAKEN = 0x010F, 0x0110, 0x0132, 0x8769, 0x9003


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """A photo in a few numbers.

    `file_size` is in bytes, `width` and `height` in pixels, upright. `taken` is the EXIF date in days since 1970 (NaN
    without one). `brightness` is the mean, `dark` the 99th and `bright` the 5th percentile of brightness, 0 to 1.
    `sharpness` is the 99.5th percentile of the Laplacian's magnitude over the range of brightness: 0 is without edges,
    a step is about 1. `entropy` is that of the brightness histogram, in bits, `contrast` its standard deviation, 0 to
    1. `fingerprint` has 64 bits: photos that look alike differ in few of them.
    """

    file_format: str
    mode: str
    width: int
    height: int
    file_size: int
    orientation: int
    animated: bool
    transparent: bool
    camera: str
    taken: float
    grey: bool
    brightness: float
    dark: float
    bright: float
    sharpness: float
    entropy: float
    contrast: float
    fingerprint: int


def facts_or_reason(path: Path) -> PhotoFacts | str:
    """Return a photo's facts, or why it cannot be read."""
    try:
        return read_facts(path)
    except PhotoError as error:
        return str(error)


def read_facts(path: Path) -> PhotoFacts:
    """Read and decode a photo once, at reduced scale, and take its facts.

    Raises:
        PhotoError: when it cannot be read, with the reason.
    """
    data = read_bytes(path)
    rgb, source, stored = decode_with_source(data, THUMBNAIL_SIDE)
    turned = orientation(source)
    width, height = stored if turned < 5 else stored[::-1]
    small = _reduced(rgb)
    grey = small.convert("L")
    histogram = np.array(grey.histogram(), np.float64) / (small.width * small.height)
    low, dark_end, high = (_percentile(histogram, share) for share in (0.01, 0.05, 0.99))
    levels = np.arange(256)
    mean = float(histogram @ levels)
    camera, taken = _camera_and_date(source)
    return PhotoFacts(
        file_format=source.format or "",
        mode=source.mode,
        width=width,
        height=height,
        file_size=len(data),
        orientation=turned,
        animated=_is_animated(source),
        transparent=bool(source.has_transparency_data),
        camera=camera,
        taken=taken,
        grey=_is_grey(small),
        brightness=mean / 255,
        dark=high / 255,
        bright=dark_end / 255,
        sharpness=_sharpness(grey, max(high - low, 1)),
        entropy=_entropy(histogram),
        contrast=math.sqrt(float(histogram @ (levels - mean) ** 2)) / 255,
        fingerprint=_fingerprint(grey),
    )


def _reduced(image: Image.Image) -> Image.Image:
    scale = THUMBNAIL_SIDE / min(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _percentile(histogram: npt.NDArray[np.float64], share: float) -> int:
    return min(255, int(np.searchsorted(np.cumsum(histogram), share)))


def _entropy(histogram: npt.NDArray[np.float64]) -> float:
    present = histogram[histogram > 0]
    return max(0.0, -float(present @ np.log2(present)))


def _is_grey(image: Image.Image) -> bool:
    """Say whether no more than a hundredth of the pixels has channels that differ by more than compression does."""
    red, green, blue = image.split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    least = ImageChops.darker(ImageChops.darker(red, green), blue)
    histogram = ImageChops.subtract(most, least).histogram()
    return sum(histogram[9:]) <= 0.01 * image.width * image.height


def _sharpness(grey: Image.Image, brightness_range: int) -> float:
    """Measure the sharpest edges: unlike the variance, that depends neither on contrast nor on how many there are."""
    pixels = np.asarray(grey, np.float32)
    if min(pixels.shape) < 3:
        return math.nan
    inner = pixels[1:-1, 1:-1]
    laplacian = 4 * inner - pixels[:-2, 1:-1] - pixels[2:, 1:-1] - pixels[1:-1, :-2] - pixels[1:-1, 2:]
    magnitude = np.abs(laplacian).ravel()
    place = int(0.995 * (magnitude.size - 1))
    return float(np.partition(magnitude, place)[place]) / brightness_range


def _fingerprint(grey: Image.Image) -> int:
    """Return the perceptual hash: 63 low frequencies above their median or not (Zauner, 2010), and a zero bit."""
    pixels = np.asarray(grey.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BILINEAR), np.float32)
    frequencies = (_COSINES @ pixels @ _COSINES.T).ravel()[1:]
    bits = np.append(frequencies > np.median(frequencies), False)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _is_animated(image: Image.Image) -> bool:
    # A phone's JPEG often holds a preview or a depth map as a second picture (MPO), which moves nothing.
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # The first frame is whole, whatever the next ones are.
        return False


def _camera_and_date(image: Image.Image) -> tuple[str, float]:
    """Read the camera's name and the date in days since 1970 from EXIF data: "" and NaN without them."""
    try:
        exif = image.getexif()
        make, model = (str(exif.get(tag, "")).strip("\0 ") for tag in (_EXIF_MAKE, _EXIF_MODEL))
        camera = model if model.startswith(make) else f"{make} {model}".strip()
        text = str(exif.get_ifd(_EXIF_DETAILS).get(_EXIF_DATE_TAKEN) or exif.get(_EXIF_DATE) or "")
    except Exception:  # The pixels are whole, whatever damage the EXIF data has.
        return "", math.nan
    try:
        date = datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return camera, math.nan
    return camera, date.timestamp() / 86400
