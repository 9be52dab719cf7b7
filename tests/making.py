"""Small pictures for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_photo(seed: int, hue: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth random picture whose colour tells its class: 0 red, 1 green, 2 blue."""
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 60, (4, 4, 3), dtype=np.uint8)
    small[..., hue] += 190
    return Image.fromarray(small).resize(size)


def make_photos(root: Path, classes: tuple[str, ...] = ("ant", "bee", "cat"), count: int = 10) -> Path:
    for hue, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            make_photo(1000 * hue + number, hue).save(root / name / f"{number}.png")
    return root
