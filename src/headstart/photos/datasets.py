"""Datasets by name: the built-in one, an archive, and those of two libraries."""

from __future__ import annotations

from pathlib import Path

from headstart.atomic import folder_written_whole
from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.photos.catalog import Catalog, read_catalog
from headstart.photos.huggingface import HF, absolute_name, huggingface_table
from headstart.photos.stanford_dogs import STANFORD_DOGS, stanford_dogs_table
from headstart.photos.tfds import TFDS, tfds_table

DIGITS = "digits"


def is_dataset(name: str) -> bool:
    """Say whether a text names a dataset rather than a folder or a table."""
    return name in (DIGITS, STANFORD_DOGS) or name.startswith((TFDS, HF))


def absolute_source(source: str | Path) -> str:
    """Write the place of photos so that it means the same from any folder; a dataset's name stays as it is."""
    if isinstance(source, str) and is_dataset(source):
        return absolute_name(source) if source.startswith(HF) else source
    return str(Path(source).expanduser().resolve())


def read_photos(source: str | Path, cache: Path, console: Console, least_classes: int = 2) -> Catalog:
    """Read photos from a folder or a table, as `read_catalog` does, or from a dataset by its name.

    Args:
        source: `digits`, `stanford-dogs`, `tfds:NAME[:SPLIT]`, `hf:NAME[:SPLIT]`, or a path; a `Path` is never
            a name. A dataset is written into the cache when it is first named, then reused.
        cache: the cache folder.
        console: where to tell of downloads.
        least_classes: with fewer, nothing can be learnt.

    Raises:
        HeadstartError: when a dataset cannot be had or written, and for all that `read_catalog` refuses.
    """
    if not isinstance(source, str) or not is_dataset(source):
        return read_catalog(source, least_classes)
    if Path(source).exists():
        console.warn(f"{source} is read as the dataset of that name; for the folder beside you give ./{source}")
    try:
        return read_catalog(_materialised(source, cache, console), least_classes)
    except OSError as error:
        raise HeadstartError(
            f"{source}: cannot be written into the cache {cache}: {error.strerror or error}.",
            "Make room there, or choose another folder with --cache.",
        ) from None


def _materialised(source: str, cache: Path, console: Console) -> Path:
    if source == DIGITS:
        return digits_folder(cache)
    if source == STANFORD_DOGS:
        return stanford_dogs_table(cache, console)
    if source.startswith(TFDS):
        return tfds_table(source, cache, console)
    return huggingface_table(source, cache, console)


def digits_folder(cache: Path) -> Path:
    """Write scikit-learn's 1,797 handwritten digits (8x8, UCI Optical Recognition) as a folder of PNG files.

    Returns:
        The folder, with a folder per class `0` to `9`; written once, then reused.
    """
    folder = cache / "datasets" / DIGITS
    if not folder.exists():
        from PIL import Image
        from sklearn.datasets import load_digits

        digits = load_digits()
        with folder_written_whole(folder) as draft:
            for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
                target = draft / str(label) / f"{index:04d}.png"
                target.parent.mkdir(exist_ok=True)
                # The digits are 4-bit, 0 to 16.
                Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(target)
    return folder
