"""What a run can be refused for before any photo is read: mistakes that the command shows by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from headstart.errors import HeadstartError
from headstart.evaluation.outsiders import outsider_photos
from headstart.network.backbones import backbone_named, build
from headstart.network.cut import boundary_of
from headstart.network.weights import IMAGENET, NONE, imagenet_file, load_weights
from headstart.photos.catalog import photos_place
from headstart.photos.corrections import read_corrections
from headstart.photos.datasets import absolute_source, is_dataset
from headstart.recipe import Recipe
from headstart.training.engines import choose_engine

# The choices that may be files or folders of the user's.
_FILES = ("weights", "labels", "outsiders")


def asked_recipe(photos: str | Path | None, recipe: Recipe | str | Path | None, choices: dict[str, Any]) -> Recipe:
    """Return what was asked for, with its paths as they were given; arguments as for `headstart.train`.

    Raises:
        HeadstartError: for each choice that is not valid, or not for this backbone, and for files that are not there.
    """
    if photos is not None:
        # A path is never the name of a dataset.
        named = isinstance(photos, Path) and is_dataset(str(photos))
        choices = {**choices, "photos": f"./{photos}" if named else str(photos)}
    choices |= {name: str(choices[name]) for name in _FILES if choices.get(name) is not None}
    if isinstance(recipe, Recipe):
        asked = recipe.changed(**choices)
    elif recipe is not None:
        asked = Recipe.read(recipe, **choices)
    elif photos is None:
        raise HeadstartError(
            "no photos given; expected a folder, a table or the name of a dataset.", "headstart train PHOTOS"
        )
    else:
        asked = Recipe.make(**choices)
    _refuse_early(asked)
    return asked


def placed(recipe: Recipe) -> Recipe:
    """Return a recipe with absolute paths, so that it can be run again from anywhere."""
    paths: dict[str, str] = {"photos": absolute_source(recipe.photos)}
    for name in _FILES:
        given = getattr(recipe, name)
        if given not in (None, IMAGENET, NONE):
            paths[name] = str(Path(given).expanduser().resolve())
    return recipe.model_copy(update=paths)


def _refuse_early(recipe: Recipe) -> None:
    """Try everything that needs no photos to be read."""
    backbone, from_file = backbone_named(recipe.backbone), recipe.weights not in (IMAGENET, NONE)
    if recipe.weights == IMAGENET:
        imagenet_file(backbone)
    steps = recipe.plan.steps if recipe.plan else ()
    parts = [part for part in (recipe.unfreeze, *(step.unfreeze for step in steps)) if isinstance(part, str)]
    if from_file or parts:
        # Shapes without numbers: takes a fraction of a second, and no memory.
        with torch.device("meta"):
            network = build(backbone, 1)
        for part in parts:
            boundary_of(network, part)
        if from_file:
            load_weights(network, backbone, recipe.weights)
    if recipe.engine == "openvino":
        choose_engine(recipe.engine)
    if recipe.labels is not None:
        read_corrections(recipe.labels)
    if recipe.outsiders is not None:
        outsider_photos(recipe.outsiders)
    if not is_dataset(recipe.photos):
        photos_place(recipe.photos)
