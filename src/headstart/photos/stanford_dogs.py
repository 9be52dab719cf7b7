"""Stanford Dogs: 20,580 photos of 120 breeds, from the archives of its authors.

A. Khosla, N. Jayadevaprakash, B. Yao and L. Fei-Fei, "Novel Dataset for Fine-Grained Image Categorization", First
Workshop on Fine-Grained Visual Categorization, CVPR 2011. Its photos are of ImageNet.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from headstart.atomic import folder_written_whole
from headstart.console import Console
from headstart.errors import HeadstartError, counted, listed
from headstart.photos.download import Archive, download, unpack
from headstart.photos.names import readable

STANFORD_DOGS = "stanford-dogs"

# Lengths and SHA-256 as TensorFlow Datasets records them for these addresses.
_SITE = "http://vision.stanford.edu/aditya86/ImageNetDogs"
IMAGES = Archive(f"{_SITE}/images.tar", "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58", 793_579_520)
LISTS = Archive(f"{_SITE}/lists.tar", "34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c", 481_280)


def stanford_dogs_table(cache: Path, console: Console, images: Archive = IMAGES, lists: Archive = LISTS) -> Path:
    """Download and unpack Stanford Dogs, once.

    Returns:
        A table for `read_catalog`, with its authors' split: 12,000 training and 8,580 test photos.

    Raises:
        HeadstartError: when the archives cannot be had or are not what they should be.
    """
    folder = cache / "datasets" / STANFORD_DOGS
    table = folder / "photos.csv"
    if not table.exists():
        downloads = folder.with_suffix(".downloads")
        console.say(f"Dataset     {STANFORD_DOGS}: {images.size / 1e6:,.0f} MB from {images.url}")
        # The small one first: whatever is amiss with the site shows at once.
        archives = [download(archive, downloads, console) for archive in (lists, images)]
        with folder_written_whole(folder) as draft:
            for archive in archives:
                unpack(archive, draft)
            _split_table(draft).to_csv(draft / table.name, index=False)
        shutil.rmtree(downloads)
    return table


def _split_table(folder: Path) -> pd.DataFrame:
    """Read the official lists of an unpacked folder into a table with the columns path, label and split."""
    rows = [
        (f"Images/{name}", readable(name.split("/")[0]), split)
        for split in ("train", "test")
        for name in _listed_photos(folder / f"{split}_list.mat")
    ]
    absent = [path for path, _, _ in rows if not (folder / path).is_file()]
    if absent:
        raise HeadstartError(
            f"{STANFORD_DOGS}: {counted(len(absent), 'photo')} of its lists not in its archive: {listed(absent)}.",
            "Run the same command again, which downloads it anew.",
        )
    return pd.DataFrame(rows, columns=["path", "label", "split"])


def _listed_photos(path: Path) -> list[str]:
    """Read the names in a MATLAB file's `file_list`: a column of cells, each with one string."""
    from scipy.io import loadmat

    return [str(cell.item()) for cell in loadmat(path)["file_list"].ravel()]
