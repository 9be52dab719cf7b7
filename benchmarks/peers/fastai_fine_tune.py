"""A peer: fastai's usual way from a folder of photos to a classifier.

`ImageDataLoaders.from_folder` with a fifth of the training photos for validation, `RandomResizedCrop` and
`aug_transforms`, fastai's head on the network, `fine_tune`: one epoch with the body frozen, then five with all of it,
by one-cycle schedules and discriminative learning rates. Everything else is fastai's default, but for batches of 16
instead of 64: with a few hundred photos those make for too few steps (signs: 72.5% instead of 74.7%) and take 8 GB.
"""

from __future__ import annotations

import argparse

import torch
from fastai.vision.all import (
    ImageDataLoaders,
    Learner,
    Normalize,
    RandomResizedCrop,
    accuracy,
    aug_transforms,
    get_image_files,
    set_seed,
    vision_learner,
)

from lite0 import IMAGE_SIZE, MEAN, NAME, STD, load_weights
from peer import Result, parser, seconds_since_start


def main() -> None:
    options = _options()
    set_seed(options.seed)
    learner = learner_with_lite0(data(options), options)
    learner.fine_tune(options.epochs)
    learner.export(options.result.with_suffix(".pkl").resolve())
    seconds = seconds_since_start()
    Result(test_accuracy(learner, options), seconds).write(options.result)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--epochs", type=int, default=5, help="of the whole network, after one of the head (5)")
    options.add_argument("--batch-size", type=int, default=16, help="(16)")
    return options.parse_args()


def data(options: argparse.Namespace) -> ImageDataLoaders:
    """Return the training photos, a fifth of them for validation."""
    return ImageDataLoaders.from_folder(
        options.photos / "train",
        valid_pct=0.2,
        seed=options.seed,
        bs=options.batch_size,
        item_tfms=RandomResizedCrop(IMAGE_SIZE, min_scale=0.5),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(MEAN, STD)],
        num_workers=2,
    )


def learner_with_lite0(photos: ImageDataLoaders, options: argparse.Namespace) -> Learner:
    """Make fastai's learner for timm's Lite0; the weights come from the package instead of a download."""
    learner = vision_learner(photos, NAME, pretrained=False, normalize=False, metrics=accuracy)
    learner.path = options.result.parent.resolve()
    load_weights(learner.model[0].model)
    learner.model.to(memory_format=torch.channels_last)
    learner.freeze()
    return learner


def test_accuracy(learner: Learner, options: argparse.Namespace) -> float:
    """Return the share of test photos whose class is recognised."""
    loader = learner.dls.test_dl(get_image_files(options.photos / "test"), with_labels=True, num_workers=2)
    probabilities, labels = learner.get_preds(dl=loader)
    return accuracy(probabilities, labels).item()


if __name__ == "__main__":
    main()
