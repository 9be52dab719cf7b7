"""What the Keras example advises, said where a recipe goes against it.

That blocks train whole or not at all is no advice here: boundaries lie between blocks only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from headstart.network.backbones import backbone_named
from headstart.photos.catalog import Catalog
from headstart.recipe import Recipe

_SAMPLE = 200
_LARGE_PARAMETERS = 8_000_000
_PHOTOS_FOR_LARGE = 5_000


def advice(recipe: Recipe, catalog: Catalog, image_size: int) -> Iterator[str]:
    """Yield what speaks against a recipe's choices for these photos, a sentence each.

    Args:
        recipe: the choices.
        catalog: the photos, split.
        image_size: what the network sees, in pixels.
    """
    training = int((catalog.photos["split"] == "train").sum())
    backbone = backbone_named(recipe.backbone)
    trains = recipe.unfreeze != 0
    if trains and recipe.train_batch_norm and not recipe.from_scratch:
        yield "BatchNorm trains: small batches spoil its statistics, and with them what the network has learnt."
    if trains and recipe.optimiser == "rmsprop":
        yield "RMSprop: its momentum spoils pretrained weights in the first steps; adamw and sgd do not."
    if trains and recipe.batch_size > 64 and recipe.batch_size * 8 > training:
        steps = -(-training // recipe.batch_size)
        yield f"batches of {recipe.batch_size} make {steps} steps an epoch: smaller ones do better on so few photos."
    if backbone.parameters_without_top > _LARGE_PARAMETERS and training < _PHOTOS_FOR_LARGE:
        yield f"{backbone.name} is large for {training:,} training photos: a smaller one usually does as well."
    if (side := median_short_side(catalog)) and side * 2 < image_size and image_size > 96:
        yield f"photos of {side} pixels are enlarged to {image_size}: a smaller --image-size is faster."
    if not 0.5 <= image_size / backbone.image_size <= 1.5:
        yield f"{image_size} pixels are far from the {backbone.image_size} that {backbone.name} was made for."


def median_short_side(catalog: Catalog) -> int:
    """Return the median short side of some of the photos in pixels, 0 where none can be opened."""
    rows = np.linspace(0, len(catalog.photos) - 1, min(_SAMPLE, len(catalog.photos))).astype(int)
    sides = []
    for path in catalog.photos["path"].iloc[rows]:
        try:
            with Image.open(catalog.root / path) as photo:
                sides.append(min(photo.size))
        except Exception:  # noqa: S112 - any damage at all: such files are named elsewhere
            continue
    return int(np.median(sides)) if sides else 0
