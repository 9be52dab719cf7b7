"""The small pictures of a run's photos, as they go into the report."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import pandas as pd
from PIL import Image

from headstart.run_folder import RunFolder

# Of pictures in the page, as text: with them it stays below 5 MB.
MOST_CHARACTERS = 3_800_000


@dataclass(frozen=True)
class Inlined:
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


class Album:
    """Gives out a run's thumbnails and heatmaps by the photo's path, as many as the page has room for."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder.pictures
        self._room = MOST_CHARACTERS
        self._files: dict[tuple[str, str], str] = {}
        listing = self._folder / "pictures.csv"
        if listing.exists():
            table = pd.read_csv(listing, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
            for kind in ("thumbnail", "heatmap"):
                self._files |= {
                    (path, kind): name for path, name in zip(table["path"], table[kind], strict=True) if name
                }

    def thumbnail(self, path: str) -> Inlined | None:
        """Return a photo's thumbnail, or None where there is none."""
        return self._inlined(path, "thumbnail")

    def heatmap(self, path: str) -> Inlined | None:
        """Return a photo's Grad-CAM overlay, or None where there is none."""
        return self._inlined(path, "heatmap")

    def _inlined(self, path: str, kind: str) -> Inlined | None:
        name = self._files.get((path, kind))
        file = self._folder / name if name else None
        if file is None or not file.is_file():
            return None
        data = file.read_bytes()
        uri = "data:image/jpeg;base64," + base64.b64encode(data).decode()
        if len(uri) > self._room:
            return None
        self._room -= len(uri)
        with Image.open(io.BytesIO(data)) as picture:
            return Inlined(uri, picture.width, picture.height)
