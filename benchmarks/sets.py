"""Sets of photos for the ablations and for the peers' benchmark, made from the shared ones and scikit-learn's digits.

Each set is a folder with `train` and `test`, and the classes inside, of copied photos. Which photos are test photos
depends on their bytes alone, so the ablations, which see `train` only, never meet what the benchmark tests on.

python benchmarks/sets.py SHARED TARGET
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

Change = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Photo:
    """A photo's class, its name and its bytes."""

    label: str
    name: str
    data: bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shared", type=Path, help="holds dogs20, grocery and signs")
    parser.add_argument("target", type=Path, help="a new folder")
    options = parser.parse_args()
    for name, (train, test) in all_sets(options.shared).items():
        write_set(train, test, options.target / name)


def all_sets(shared: Path) -> dict[str, tuple[list[Photo], list[Photo]]]:
    """Return the training and test photos of every set."""
    dogs, dogs_test = _halved(_photos(shared / "dogs20"))
    # Fewer than there are: ImageNet's networks know these photos, and peers take hours over more.
    dogs = _few(dogs, 20), dogs_test
    signs = _halved(_photos(shared / "signs"))
    grocery = list(_photos(shared / "grocery" / "train")), list(_photos(shared / "grocery" / "test"))
    digits = _halved(_digits())
    tiny = _changed(dogs, _tiny_grey)
    return {
        "dogs20": dogs,
        "grocery": grocery,
        "signs": signs,
        # Derived: drawn digits, not photos at all; small grey photos, as a camera in the woods takes them at night.
        "digits": (_few(digits[0], 30), digits[1]),
        "dogs20-tiny-grey": tiny,
        # For ablations only.
        "signs-10": (_few(signs[0], 10), signs[1]),
        "grocery-blurred": _changed(grocery, _blurred),
        "dogs20-noise": (_mislabelled(dogs[0], 0.2), dogs[1]),
        "dogs20-unbalanced": (_unbalanced(dogs[0]), dogs[1]),
    }


def write_set(train: list[Photo], test: list[Photo], folder: Path) -> None:
    """Write a set's folder, and print how many photos it has."""
    print(f"{folder.name:<18} {_write(train, folder / 'train'):>5} train", end="")
    print(f" {_write(test, folder / 'test'):>5} test")


def _write(photos: list[Photo], folder: Path) -> int:
    """Write photos below a folder that is made anew; return how many."""
    shutil.rmtree(folder, ignore_errors=True)
    for photo in photos:
        path = folder / photo.label / photo.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo.data)
    return len(photos)


def _photos(folder: Path) -> Iterator[Photo]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield Photo(path.relative_to(folder).parts[0], path.name, path.read_bytes())


def _digits() -> Iterator[Photo]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for number, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        file = io.BytesIO()
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(file, "PNG")
        yield Photo(str(label), f"{number:04}.png", file.getvalue())


def _rank(photo: Photo) -> bytes:
    """Return what orders photos at random, but always the same."""
    return hashlib.sha256(photo.data).digest()


def by_class(photos: list[Photo]) -> list[list[Photo]]:
    """Return the photos of each class, shuffled always alike."""
    labels = sorted({photo.label for photo in photos})
    return [sorted((photo for photo in photos if photo.label == label), key=_rank) for label in labels]


def _halved(photos: Iterator[Photo]) -> tuple[list[Photo], list[Photo]]:
    """Part photos by their bytes: six of ten train."""
    train, test = [], []
    for members in by_class(list(photos)):
        cut = round(0.6 * len(members))
        train += members[:cut]
        test += members[cut:]
    return train, test


def _few(photos: list[Photo], count: int) -> list[Photo]:
    return [photo for members in by_class(photos) for photo in members[:count]]


def _unbalanced(photos: list[Photo]) -> list[Photo]:
    """Keep all photos of the first class, ever fewer of the next ones, a tenth of the last."""
    classes = by_class(photos)
    shares = np.geomspace(1, 0.1, len(classes))
    return [
        photo
        for share, members in zip(shares, classes, strict=True)
        for photo in members[: round(share * len(members))]
    ]


def _mislabelled(photos: list[Photo], share: float) -> list[Photo]:
    """Give a share of the photos another class, drawn at random."""
    draw, labels = np.random.default_rng(0), sorted({photo.label for photo in photos})
    wrong = draw.random(len(photos)) < share
    return [
        Photo(draw.choice([label for label in labels if label != photo.label]), photo.name, photo.data)
        if is_wrong
        else photo
        for photo, is_wrong in zip(photos, wrong, strict=True)
    ]


def _changed(parts: tuple[list[Photo], list[Photo]], change: Change) -> tuple[list[Photo], list[Photo]]:
    train, test = (
        [Photo(photo.label, f"{Path(photo.name).stem}.png", change(photo.data)) for photo in part] for part in parts
    )
    return train, test


def _tiny_grey(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("L")
    image.thumbnail((48, 48))
    return png(image)


def _blurred(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.thumbnail((256, 256))
    return png(image.filter(ImageFilter.GaussianBlur(3)))


def png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
