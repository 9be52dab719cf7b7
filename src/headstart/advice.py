"""What to bear in mind: the Keras example's advice, where a recipe goes against it, and how to read the numbers.

That blocks train whole or not at all is no advice here: boundaries lie between blocks only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from headstart.network.backbones import backbone_named
from headstart.network.weights import IMAGENET
from headstart.photos.catalog import Catalog
from headstart.recipe import Recipe

_LARGE_PARAMETERS = 8_000_000
_PHOTOS_FOR_LARGE = 5_000
# ImageNet's names for its classes, and for the files in them.
_SYNSET = re.compile(r"n\d{8}(?!\d)")


def notes(recipe: Recipe, catalog: Catalog) -> Iterator[str]:
    """Yield what to bear in mind when reading the numbers, a sentence each.

    Args:
        recipe: the choices.
        catalog: the photos.
    """
    named = sum(1 for name in catalog.class_names if _SYNSET.match(name))
    part_of_imagenet = re.search(r"stanford[-_]?dogs|imagenet", recipe.photos.casefold()) is not None
    if recipe.weights == IMAGENET and (part_of_imagenet or 2 * named > len(catalog.class_names)):
        yield (
            "These photos seem to be a part of ImageNet (Stanford Dogs is), and the pretrained weights have seen "
            "ImageNet, perhaps test photos of yours among it: expect less on new photos."
        )


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
    if trains and recipe.batch_size is not None and recipe.batch_size > 64 and recipe.batch_size * 8 > training:
        steps = -(-training // recipe.batch_size)
        yield f"batches of {recipe.batch_size} make {steps} steps an epoch: smaller ones do better on so few photos."
    if backbone.parameters_without_top > _LARGE_PARAMETERS and training < _PHOTOS_FOR_LARGE:
        yield f"{backbone.name} is large for {training:,} training photos: a smaller one usually does as well."
    if not 0.5 <= image_size / backbone.image_size <= 1.5:
        yield f"{image_size} pixels are far from the {backbone.image_size} that {backbone.name} was made for."
