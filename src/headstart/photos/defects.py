"""Photos that are hard to learn from, and files that are not quite what they seem: from the facts of each photo."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from statistics import median

from headstart.errors import counted
from headstart.photos.facts import THUMBNAIL_SIDE, PhotoFacts
from headstart.photos.findings import EVERYTHING, NOTE, Finding

Photos = list[tuple[str, PhotoFacts]]  # with their paths

# Beyond what unspoilt photos show (docs/experiments.md), so that a finding is worth a look. A photo must also be below
# half of what is usual in its set: night scenes or drawings are no defects where all are.
LEAST_HIGHLIGHT = 0.25
LEAST_SHADOW = 0.05
LEAST_ENTROPY = 2.0
LEAST_SHARPNESS = 0.1
LEAST_SIDE = 32
LEAST_SHORT_SIDE = 0.33
LEAST_SIZE_RATIO = 0.1
# Where more than this share of the photos shows it, it is the nature of the set: one note instead of a row each.
COMMON_SHARE = 0.25

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "DIB": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
_MODES = {"1": "1 bit a pixel", "P": "palette", "PA": "palette", "CMYK": "CMYK", "LAB": "LAB", "YCbCr": "YCbCr"}
_REASONS = {
    "decompression bomb": "decompression bomb",
    "damaged: Decompressed data too large": "decompression bomb",
    "damaged: image file is truncated": "truncated",
    "damaged: Truncated": "truncated",
    "damaged": "damaged",
    "not an image": "not an image",
    "empty file": "empty file",
}


def unreadable(path: str, reason: str) -> Finding:
    """Name the kind of problem that kept a photo from being decoded."""
    problem = next((name for start, name in _REASONS.items() if reason.startswith(start)), "unreadable")
    return Finding(path, problem, reason)


def file_findings(photos: Photos) -> Iterator[Finding]:
    """Find files with a suffix of another format, turned by EXIF, in odd modes, transparent or animated."""
    for path, photo in photos:
        suffix = PurePosixPath(path).suffix.lower()
        expected = _SUFFIXES.get(photo.file_format)
        if expected and suffix not in expected:
            yield Finding(path, "wrong suffix", f"{photo.file_format} named {suffix or 'without a suffix'}")
        if photo.orientation in range(2, 9):
            yield Finding(path, "rotated by EXIF", f"orientation {photo.orientation}")
        if photo.mode in _MODES:
            yield Finding(path, "odd mode", _MODES[photo.mode])
        elif photo.mode.startswith("I") or photo.mode == "F":
            yield Finding(path, "odd mode", f"{'16' if '16' in photo.mode else '32'} bits a pixel")
        if photo.transparent:
            yield Finding(path, "transparency", "put on white")
        if photo.animated:
            yield Finding(path, "animated", f"{photo.file_format} with several frames")


def look_findings(photos: Photos) -> list[Finding]:
    """Find photos that are too dark, too bright, blurry, without information, tiny, or of an odd size or aspect.

    A photo is named for the first of the looks alone: a black photo is also without edges, and that says nothing more.
    """
    usual = median(_side(photo) for _, photo in photos) if photos else 0.0
    findings: list[Finding] = []
    named: set[str] = set()
    for look in _LOOKS:
        findings += _set_or_photos(photos, look, named)
    for look in (_TINY, _LONG, replace(_UNUSUAL, score=lambda photo: _likeness(photo, usual))):
        findings += _set_or_photos(photos, look, set())
    return findings


@dataclass(frozen=True)
class _Look:
    """A score that is low in poor photos, the limit below which it counts, and how to tell of it."""

    problem: str
    limit: float
    score: Callable[[PhotoFacts], float]
    said: Callable[[PhotoFacts], str]
    by_half: bool = True


def _set_or_photos(photos: Photos, look: _Look, named: set[str]) -> Iterator[Finding]:
    """Tell of the photos below the limit, and not near the usual either, but for those in `named`, and add them there.

    What is common to the set is summed up.
    """
    scores = [look.score(photo) for _, photo in photos]
    below = [n for n, score in enumerate(scores) if score < look.limit and photos[n][0] not in named]
    if not below:
        return
    if len(below) > max(1, COMMON_SHARE * len(photos)):
        path, photo = photos[below[0]]
        detail = f"{len(below):,} of {counted(len(photos), 'photo')}, such as {path}: {look.said(photo)}"
        yield Finding(EVERYTHING, look.problem, detail, NOTE)
        named.update(photos[number][0] for number in below)
        return
    limit = min(look.limit, median(scores) / 2) if look.by_half else look.limit
    for number in below:
        path, photo = photos[number]
        if scores[number] < limit:
            yield Finding(path, look.problem, look.said(photo))
            named.add(path)


def _side(photo: PhotoFacts) -> float:
    return float((photo.width * photo.height) ** 0.5)


def _short_over_long(photo: PhotoFacts) -> float:
    return min(photo.width, photo.height) / max(photo.width, photo.height)


def _likeness(photo: PhotoFacts, usual: float) -> float:
    return min(_side(photo) / usual, usual / _side(photo))


def _sharpness(photo: PhotoFacts) -> float:
    # In a picture smaller than half the thumbnail, and in one without edges, this says nothing.
    judged = min(photo.width, photo.height) >= THUMBNAIL_SIDE // 2 and not math.isnan(photo.sharpness)
    return photo.sharpness if judged else 1.0


_LOOKS = (
    _Look(
        "too dark",
        LEAST_HIGHLIGHT,
        lambda photo: photo.dark,
        lambda photo: f"99% of it is no brighter than {photo.dark:.2f} of white (limit {LEAST_HIGHLIGHT})",
    ),
    _Look(
        "too bright",
        LEAST_SHADOW,
        lambda photo: 1 - photo.bright,
        lambda photo: f"95% of it is within {1 - photo.bright:.2f} of white (limit {LEAST_SHADOW})",
    ),
    _Look(
        "low information",
        LEAST_ENTROPY,
        lambda photo: photo.entropy,
        lambda photo: f"entropy {photo.entropy:.2f} bits of 8 (limit {LEAST_ENTROPY:g})",
    ),
    _Look(
        "blurry",
        LEAST_SHARPNESS,
        _sharpness,
        lambda photo: f"sharpness {photo.sharpness:.3f}, a sharp edge is about 1 (limit {LEAST_SHARPNESS})",
    ),
)
_TINY = _Look(
    "tiny",
    LEAST_SIDE,
    lambda photo: min(photo.width, photo.height),
    lambda photo: f"{photo.width} x {photo.height} pixels (limit {LEAST_SIDE})",
    by_half=False,
)
_LONG = _Look(
    "odd aspect",
    LEAST_SHORT_SIDE,
    _short_over_long,
    lambda photo: (
        f"{photo.width} x {photo.height} pixels: a central square shows {_short_over_long(photo):.0%} of it "
        f"(limit {LEAST_SHORT_SIDE:.0%})"
    ),
    by_half=False,
)
_UNUSUAL = _Look(
    "odd size",
    LEAST_SIZE_RATIO,
    _side,
    lambda photo: f"{photo.width} x {photo.height} pixels: a tenth of the usual or less, or ten times as much",
    by_half=False,
)
