"""Pictures to look at before and after training: samples, augmented views, curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from headstart.cache import cache_folder
from headstart.choices import Augmentation, ResizePolicy
from headstart.console import Console
from headstart.errors import HeadstartError, PhotoError, counted, listed
from headstart.photos.augmentation import augmented_view
from headstart.photos.catalog import Catalog, file_digest, is_photo_file
from headstart.photos.datasets import read_photos
from headstart.photos.decode import decode, pillow_warnings_silenced, read_bytes
from headstart.photos.names import readable_names
from headstart.photos.views import evaluation_view
from headstart.report.figure import Picture, caption
from headstart.report.plots import history_figure
from headstart.run_folder import RunFolder

if TYPE_CHECKING:
    from headstart.run import Run

_CELLS = 9
_COLUMNS = 3
# Enough for a cell of 2.4 inches as it is written.
_CELL_PIXELS = 320


def show_samples(photos: str | Path, seed: int = 0) -> Picture:
    """Draw nine photos with their labels, from different classes as far as there are.

    Args:
        photos: a folder with a folder per class, a table, or `digits`; see `headstart.train`.
        seed: which photos are drawn.

    Raises:
        HeadstartError: when there are no photos, or none that can be read.
    """
    catalog = _read_photos(photos)
    names = dict(zip(catalog.class_names, readable_names(catalog.class_names), strict=True))
    cells = []
    for _, label, photo in _drawn_photos(catalog, seed, _CELLS, _CELL_PIXELS):
        photo.thumbnail((_CELL_PIXELS, _CELL_PIXELS), Image.Resampling.BICUBIC)
        cells.append((np.asarray(photo), names[label]))
    number, classes = counted(len(catalog.photos), "photo"), counted(len(catalog.class_names), "class")
    return _grid(cells, f"{caption(catalog.root.name, 40)}: {len(cells)} of {number} in {classes}")


def show_views(
    photos: str | Path,
    augmentation: Augmentation = "strong",
    *,
    photo: str | Path | None = None,
    image_size: int | None = None,
    resize_policy: ResizePolicy = "crop",
    seed: int = 0,
) -> Picture:
    """Draw one photo's views: the evaluation view, then the augmented ones that training with this seed draws.

    Args:
        photos: one photo, or what `show_samples` takes, from which the seed draws one.
        augmentation: the policy; see `headstart.photos.augmentation.augmented_view`.
        photo: the photo to take, by its path or its path within `photos`.
        image_size: in pixels; what training takes by default if left out.
        resize_policy: how the photo becomes a square.
        seed: of the recipe.

    Raises:
        HeadstartError: when a choice is not valid, or the photo cannot be read.
    """
    from headstart.network.backbones import backbone_named
    from headstart.recipe import Recipe

    recipe = Recipe.make(
        photos=str(photos), augmentation=augmentation, image_size=image_size, resize_policy=resize_policy, seed=seed
    )
    backbone = backbone_named(recipe.backbone)
    preprocessing = backbone.preprocessing(recipe.resize_policy, recipe.image_size or backbone.transfer_size)
    path, title, image = _one_photo(photos, photo, seed, preprocessing.decode_short_side)
    digest = file_digest(path)
    cells = [(evaluation_view(image, preprocessing), "evaluation view")]
    for view in range(1, _CELLS):
        pixels = augmented_view(image, preprocessing, recipe.augmentation, seed, digest, view)
        cells.append((pixels, f"view {view}"))
    how = f"augmentation {augmentation}, {resize_policy}, {preprocessing.image_size} pixels, seed {seed}"
    return _grid(cells, f"{title}\n{how}")


def plot_history(source: Run | pd.DataFrame | str | Path) -> Picture:
    """Draw a run's accuracy and loss by epoch, stage after stage.

    Args:
        source: a finished run, its folder, its `history.csv`, or that table.

    Raises:
        HeadstartError: when there is no history.
    """
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        path = RunFolder(path).history if path.is_dir() else path
        if not path.is_file():
            raise HeadstartError(f"{source}: holds no history.csv.", "Give the folder of a finished run.")
        history, name = pd.read_csv(path), str(source)
    elif isinstance(source, pd.DataFrame):
        history, name = source, "the table"
    else:
        history, name = source.history, str(source.folder)
    parts = [f"{part}_{kind}" for part in ("train", "validation") for kind in ("accuracy", "loss")]
    missing = [column for column in ("stage", *parts) if column not in history]
    if missing:
        raise HeadstartError(f"{name}: has no column {listed(missing)}.", "Give a run, its folder or its history.csv.")
    return history_figure(history)


def _read_photos(photos: str | Path) -> Catalog:
    return read_photos(photos, cache_folder(), Console())


def _drawn_photos(catalog: Catalog, seed: int, count: int, short_side: int) -> list[tuple[Path, str, Image.Image]]:
    """Draw photos that can be read, with path and label: one of each class before two of any.

    Raises:
        HeadstartError: when none can be read.
    """
    table = catalog.photos.sample(frac=1, random_state=seed)
    table = table.assign(turn=table.groupby("label").cumcount()).sort_values("turn", kind="stable")
    drawn = []
    with pillow_warnings_silenced():
        for name, label in zip(table["path"], table["label"], strict=True):
            try:
                photo = decode(read_bytes(catalog.root / name), short_side)
            except PhotoError:
                continue
            drawn.append((catalog.root / name, label, photo))
            if len(drawn) == count:
                break
    if not drawn:
        raise HeadstartError(f"{catalog.root}: none of its photos could be read.", "Check the files.")
    return drawn


def _one_photo(
    photos: str | Path, photo: str | Path | None, seed: int, short_side: int
) -> tuple[Path, str, Image.Image]:
    """Decode the photo to draw views of, with its path and a title: the one named, or one drawn by the seed.

    Raises:
        HeadstartError: when it cannot be read, or none can.
    """
    alone = Path(photos).expanduser()
    if photo is None and not (alone.is_file() and is_photo_file(alone)):
        catalog = _read_photos(photos)
        path, label, image = _drawn_photos(catalog, seed, 1, short_side)[0]
        names = dict(zip(catalog.class_names, readable_names(catalog.class_names), strict=True))
        return path, f"{caption(names[label])}, {caption(path.name, 40)}", image
    path = alone if photo is None else Path(photo).expanduser()
    if photo is not None and not path.exists():
        path = _read_photos(photos).root / photo
    try:
        with pillow_warnings_silenced():
            return path, caption(path.name, 40), decode(read_bytes(path), short_side)
    except PhotoError as error:
        raise HeadstartError(f"{path}: {error.problem}.", "Choose another photo.") from None


def _grid(cells: list[tuple[npt.NDArray[np.uint8], str]], title: str) -> Picture:
    """Lay pictures out in rows of three, each below its caption."""
    rows = -(-len(cells) // _COLUMNS)
    # Room between the rows, so that each caption is nearer to its own picture than to the one above.
    figure = Picture(figsize=(7.5, 2.7 * rows + 0.6), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.04))
    figure.suptitle(title, fontsize=11)
    every = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in every:
        axes.set_axis_off()
    for axes, (pixels, name) in zip(every, cells, strict=False):
        axes.imshow(pixels)
        # Whatever the photo's shape, it hangs from its caption, and the captions of a row stand in line.
        axes.set_anchor("N")
        axes.set_title(caption(name, 32), fontsize=9.5, pad=4)
    return figure
