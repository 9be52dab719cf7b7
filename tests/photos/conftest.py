import itertools

import pytest
from PIL import Image


@pytest.fixture
def write_photo():
    """Return a function that writes a small photo, of another colour each time unless one is given."""
    numbers = itertools.count()

    def write(path, colour=None, image_format=None):
        number = next(numbers)
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = colour or (number * 37 % 256, number * 101 % 256, number // 256)
        Image.new("RGB", (16, 12), colour).save(path, image_format)
        return path

    return write


@pytest.fixture
def write_photos(write_photo, tmp_path):
    """Return a function that writes photos, all different, at paths relative to a new folder; returns it."""

    def write(*paths):
        for path in paths:
            write_photo(tmp_path / path)
        return tmp_path

    return write
