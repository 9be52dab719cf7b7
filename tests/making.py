"""Small pictures for tests."""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageDraw

from headstart import Classifier
from headstart.photos.views import Preprocessing


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


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Make a picture of sharp shapes in many colours: no two seeds look alike, and nothing is wrong with any."""
    draw = np.random.default_rng(seed)
    image = Image.fromarray(draw.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pencil = ImageDraw.Draw(image)
    for number in range(14):
        x, y = (int(draw.integers(0, side)) for side in size)
        width, height = (int(draw.integers(8, side // 3)) for side in size)
        shape = pencil.ellipse if number % 2 else pencil.rectangle
        shape((x, y, x + width, y + height), fill=tuple(int(value) for value in draw.integers(0, 256, 3)))
    return image


def make_scenes(root: Path, classes: tuple[str, ...] = ("ant", "bee", "cat"), count: int = 12) -> Path:
    """Make a folder of photos with which nothing is wrong."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            scene(1000 * number + index).save(root / name / f"{index}.jpg", quality=92)
    return root


def small_classifier(timm_name: str, **preprocessing) -> Classifier:
    """A classifier with random weights, its statistics and its top included."""
    torch.manual_seed(0)
    network = timm.create_model(timm_name, num_classes=len(["ant", "bee", "cat", "dog"]))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
        if getattr(module, "has_skip", False):
            # What a block adds to its input stays small, as in trained networks: else rounding grows with the depth.
            last = [child for child in module.children() if isinstance(child, torch.nn.BatchNorm2d)][-1]
            torch.nn.init.uniform_(last.weight, 0.1, 0.3)
    torch.nn.init.normal_(network.classifier.weight, std=0.5)
    settings = {"image_size": 64, "mean": (120.0, 110.0, 100.0), "std": (60.0, 55.0, 50.0), **preprocessing}
    return Classifier(network, ["ant", "bee", "cat", "dog"], Preprocessing(**settings), "b0", {}, "torch")
