"""Small pictures of the photos that the report shows, kept in the run folder: the photos may go."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from torch import nn

from headstart.atomic import folder_written_whole, write_table
from headstart.console import Console
from headstart.errors import PhotoError
from headstart.network.saliency import overlay, saliency
from headstart.photos.decode import decode, read_bytes
from headstart.photos.loading import ahead
from headstart.photos.views import Pixels, Preprocessing, evaluation_view
from headstart.report.selection import ShownPhoto, select
from headstart.report.tables import read_tables
from headstart.run_folder import RunFolder

_SHORT_SIDE, _LONGEST_SHAPE = 120, 1.6
_HEATMAP_SIDE = 200
# The report stays small however noisy the photos are: what is larger is compressed more.
_THUMBNAIL_BYTES, _HEATMAP_BYTES = 9_000, 20_000
_QUALITIES = (75, 60, 45, 30, 15)


@dataclass(frozen=True)
class _Made:
    """A photo's thumbnail as JPEG, and its evaluation view where its heatmap is wanted."""

    path: str
    thumbnail: bytes
    view: Pixels | None


def write_thumbnails(
    folder: RunFolder, root: Path, network: nn.Module, preprocessing: Preprocessing, console: Console | None = None
) -> None:
    """Write `pictures/`, whole or not at all, from the run's tables: thumbnails, Grad-CAM and `pictures.csv`.

    Args:
        folder: a run whose tables are written.
        root: what the paths of its photos are relative to. Those that cannot be read any more are left out.
        network: the trained network, in evaluation mode.
        preprocessing: what its photos are prepared by.
        console: where progress is shown, if anywhere.
    """
    tables = read_tables(folder)
    selection = select(tables)
    looked_into = {photo.path: photo for photo in [*selection.right, *selection.wrong]}
    paths = list(dict.fromkeys([*selection.paths, *looked_into]))

    def make(path: str) -> _Made | None:
        viewed = path in looked_into
        try:
            photo = decode(read_bytes(root / path), preprocessing.decode_short_side if viewed else _SHORT_SIDE)
        except PhotoError:
            return None
        view = evaluation_view(photo, preprocessing) if viewed else None
        return _Made(path, _jpeg(_small(photo), _THUMBNAIL_BYTES), view)

    made: list[_Made] = []
    with (console or Console(quiet=True)).progress("pictures", len(paths)) as advance:
        for found in ahead(paths, make):
            advance(1)
            if found is not None:
                made.append(found)
    heatmaps = _heatmaps(made, looked_into, tables.class_names, network, preprocessing)
    _write(folder.pictures, made, heatmaps)


def _heatmaps(
    made: Sequence[_Made],
    looked_into: dict[str, ShownPhoto],
    class_names: list[str],
    network: nn.Module,
    preprocessing: Preprocessing,
) -> dict[str, bytes]:
    """Return JPEGs by path: what speaks for the class that each photo was taken for."""
    index = {name: number for number, name in enumerate(class_names)}
    views = {photo.path: photo.view for photo in made if photo.view is not None}
    if not views:
        return {}
    classes = np.array([index[looked_into[path].other] for path in views], np.int64)
    pixels = np.stack(list(views.values()))
    heatmaps = {}
    for path, view, found in zip(views, pixels, saliency(network, preprocessing, pixels, classes), strict=True):
        side = min(_HEATMAP_SIDE, len(view))
        small = Image.fromarray(overlay(view, found)).resize((side, side), Image.Resampling.BICUBIC)
        heatmaps[path] = _jpeg(small, _HEATMAP_BYTES)
    return heatmaps


def _small(photo: Image.Image) -> Image.Image:
    """Reduce a photo, and cut the ends off a very long one."""
    width, height = photo.size
    longest = round(_LONGEST_SHAPE * min(width, height))
    kept_width, kept_height = min(width, longest), min(height, longest)
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    scale = min(1.0, _SHORT_SIDE / min(width, height))
    size = (max(1, round(scale * kept_width)), max(1, round(scale * kept_height)))
    box = (left, top, left + kept_width, top + kept_height)
    return photo.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=3.0)


def _jpeg(picture: Image.Image, most_bytes: int) -> bytes:
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= most_bytes:
            break
    return buffer.getvalue()


def _write(pictures: Path, made: Sequence[_Made], heatmaps: dict[str, bytes]) -> None:
    with folder_written_whole(pictures) as draft:
        rows = []
        for number, photo in enumerate(made):
            # Numbers, because photos' own names may be anything.
            names = {"path": photo.path, "thumbnail": f"{number:03}.jpg", "heatmap": ""}
            (draft / names["thumbnail"]).write_bytes(photo.thumbnail)
            if photo.path in heatmaps:
                names["heatmap"] = f"{number:03}-heatmap.jpg"
                (draft / names["heatmap"]).write_bytes(heatmaps[photo.path])
            rows.append(names)
        write_table(draft / "pictures.csv", pd.DataFrame(rows, columns=["path", "thumbnail", "heatmap"]))
