"""What a client may ask of the server: sizes, numbers, times."""

from __future__ import annotations

import re
from dataclasses import dataclass

from headstart.errors import HeadstartError
from headstart.photos.decode import MAX_PIXELS

_UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
# Bodies that are held at once, as a multiple of the largest one allowed.
_BODIES_AT_ONCE = 4


@dataclass(frozen=True)
class Limits:
    """Limits of one server.

    `max_body` in bytes, `max_pixels` of one photo, `max_photos` of one request, `receive_timeout` in seconds from the
    first byte of a request to its last, and for a client to read what it was sent; `queue` in photos of all requests
    that wait for one model.
    """

    max_body: int = 64 << 20
    max_pixels: int = 100_000_000
    max_photos: int = 64
    receive_timeout: float = 30
    queue: int = 256

    def __post_init__(self) -> None:
        for name in ("max_body", "max_pixels", "max_photos", "receive_timeout"):
            value = getattr(self, name)
            if not value > 0:
                option = f"--{name.replace('_', '-')}"
                raise HeadstartError(f"{option} {value}: expected more than 0.", "Leave it out for the default.")
        if self.max_pixels > MAX_PIXELS:
            raise HeadstartError(
                f"--max-pixels {self.max_pixels}: expected at most {MAX_PIXELS:,}, what Headstart decodes at all.",
                "Make such photos smaller first.",
            )
        if self.queue < self.max_photos:
            raise HeadstartError(
                f"--queue {self.queue}: expected {self.max_photos} or more, so that one full request fits in.",
                "Raise it, or lower --max-photos.",
            )

    @property
    def all_bodies(self) -> int:
        """The most bytes of bodies that are held at once, in all requests together."""
        return _BODIES_AT_ONCE * self.max_body


def parse_size(text: str) -> int:
    """Read a size such as 500000, 800KB, 64MB or 1GB, in bytes; a KB is 1,024.

    Raises:
        HeadstartError: when it is not one.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in _UNITS:
        raise HeadstartError(f"--max-body {text}: expected a size such as 64MB.", "Units are KB, MB and GB.")
    return int(float(found[1]) * _UNITS[found[2]])
