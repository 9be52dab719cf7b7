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


def landscape(width: int, height: int) -> Image.Image:
    """Make a smooth picture that differs everywhere, with known structure and no fine detail."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [np.sin(6 * x + 2 * y), np.cos(5 * y - x), np.sin(4 * x * y + 1)]
    return Image.fromarray(np.stack([128 + 100 * wave for wave in waves], axis=-1).round().astype(np.uint8))


def halves(width: int, height: int) -> Image.Image:
    """Make a picture red on the left and blue on the right."""
    image = Image.new("RGB", (width, height), "blue")
    image.paste("red", (0, 0, width // 2, height))
    return image
