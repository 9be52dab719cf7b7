"""From a file's bytes to upright RGB pixels, or a named reason why not."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from headstart.errors import PhotoError

# Enters the key of every stored activation: raise it when a change here alters pixels.
DECODER_VERSION = 1

# Pillow's own default limit for an error (twice its warning limit): 1 GiB / 4 / 3 pixels, doubled.
MAX_PIXELS = 2 * (1024 * 1024 * 1024 // 4 // 3)

_IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .dib .gif .tif .tiff .heic .heif .avif .apng".split()
)
_RAW_SUFFIXES = frozenset(".cr2 .cr3 .nef .arw .dng .orf .rw2 .raf .pef .srw".split())
_FTYP_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis", b"avif", b"avis")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Drawings that Pillow has other programs (Ghostscript, Windows) carry out: never done for a file of unknown origin.
_NO_PHOTOS = frozenset(("EPS", "WMF"))
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)


def looks_like_photo(path: Path, head: bytes) -> bool:
    """Say whether a file is, or claims to be, a photo: by its first 32 bytes, else by its suffix.

    A text file is neither and is left alone; an HTML page named `.jpg` claims to be one, so that the
    user hears about it.
    """
    suffix = path.suffix.lower()
    if suffix in _IMAGE_SUFFIXES or suffix in _RAW_SUFFIXES:
        return True
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")):
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return True
    if head[4:8] == b"ftyp" and head[8:12] in _FTYP_BRANDS:
        return True
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES


def read_bytes(path: str | Path) -> bytes:
    """Read a photo's file.

    Raises:
        PhotoError: when it is missing, a folder, empty, or not readable.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise PhotoError("no such file", "missing") from None
    except IsADirectoryError:
        raise PhotoError("is a folder", "folder") from None
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror or error}", "unreadable") from None
    except ValueError:  # a NUL, or what the file system's encoding has not
        raise PhotoError("no such file: the name has a character that no name of a file can have", "missing") from None
    if not data:
        raise PhotoError("empty file", "empty")
    if os.path.splitext(path)[1].lower() in _RAW_SUFFIXES:
        raise PhotoError("camera raw file: convert it to JPEG or PNG", "raw")
    return data


class Decoded(NamedTuple):
    """A decoded photo: upright RGB pixels, and the image as the file has it.

    `source` is Pillow's own image, with the file's format, mode and EXIF data; its pixels may be reduced. `size` is the
    width and height that the file says.
    """

    rgb: Image.Image
    source: Image.Image
    size: tuple[int, int]


def decode(data: bytes, short_side: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to upright RGB.

    EXIF orientation is applied; CMYK, palette, grey, 1-bit and 16-bit images become 8-bit RGB; transparency
    is put on white; of an animation the first frame is taken. A JPEG is decoded at 1/2, 1/4 or 1/8 of its
    size (scaled DCT) as long as its short side stays at least `short_side` pixels.

    Raises:
        PhotoError: with the reason, for anything that Pillow cannot decode whole, and for more than `max_pixels`
            pixels (by the file's header, before any is decoded).
    """
    return decode_with_source(data, short_side, max_pixels).rgb


def decode_with_source(data: bytes, short_side: int, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode as `decode` does, and keep what the file says about itself.

    Raises:
        PhotoError: as `decode` does.
    """
    try:
        if not data:
            raise PhotoError("empty file", "empty")
        image = Image.open(io.BytesIO(data))
        if image.format in _NO_PHOTOS:
            raise PhotoError(f"{image.format} is not a format of photos", "not_an_image")
        width, height = image.size
        if width * height > max_pixels:
            raise _too_large(f"{width} x {height}", max_pixels)
        if image.format in ("JPEG", "MPO"):
            image.draft(None, _draft_size(width, height, short_side))
        image.load()
        rgb = _to_rgb(image)
        turn = _UPRIGHT.get(orientation(image))
        return Decoded(rgb if turn is None else rgb.transpose(turn), image, (width, height))
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        # Pillow refuses by itself, at a limit of its own, and tells no more than the number of pixels.
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(f"{int(found[1]):,}" if found else "too many", MAX_PIXELS) from None
    except UnidentifiedImageError:
        raise PhotoError(f"not an image that can be read (starts with {data[:8]!r})", "not_an_image") from None
    except Exception as error:  # Pillow's plugins raise nearly every built-in exception on damaged files.
        raise PhotoError(f"damaged: {str(error) or type(error).__name__}", "damaged") from None


def _too_large(found: str, allowed: int) -> PhotoError:
    return PhotoError(
        f"decompression bomb: {found} pixels, at most {allowed:,} allowed; save it with fewer, or leave it out", "bomb"
    )


def _draft_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    shorter = min(width, height)
    return max(1, width * short_side // shorter), max(1, height * short_side // shorter)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 where there is none."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # The pixels are whole, whatever damage the EXIF data has.
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        rgb = Image.fromarray(_scaled_to_8_bit(np.asarray(image))).convert("RGB")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = Image.new("RGB", rgba.size, "white")
        rgb.paste(rgba, mask=rgba.getchannel("A"))
    elif image.mode == "RGB":
        rgb = image  # converting it would copy it, which takes a tenth of a small JPEG's decoding
    else:
        rgb = image.convert("RGB")
    return rgb


def _scaled_to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """Scale 16-bit, 32-bit or float grey to 0-255.

    16-bit values are divided by 257. Wider types have no agreed white point: values that fit 8 or 16 bits
    are taken as such, anything else is stretched from its least to its greatest value.
    """
    values = pixels.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if pixels.dtype.itemsize == 2 or (low >= 0 and 255 < high <= 65535):
        values = values / 257
    elif low < 0 or high > 255:
        values = (values - low) * (255 / max(high - low, 1e-12))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@contextmanager
def pillow_warnings_silenced() -> Iterator[None]:
    """Silence Pillow's warnings about odd files while photos are decoded.

    What matters among them (bombs, damage) becomes a `PhotoError` with the file's name; Python's warning
    filters are process-wide, so this goes around a pool of threads, never inside one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
