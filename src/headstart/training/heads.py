"""Linear heads as networks' classifiers, and the blend of a trained one with one that is fitted anew.

A step of fine-tuning takes a few hundred updates. They move the layers below, which is what they are for, and leave the
head behind: far from the least loss on the features that have become of it. That one is found in seconds, as the
probe's is. It has seen only features that were trained on the same photos, though, so both heads are averaged, each at
its own temperature: as logits, and so as weights (docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from headstart.evaluation.calibration import fit_temperature
from headstart.training.data import TrainingData
from headstart.training.finetuning import Rows, suffix_outputs
from headstart.training.hardware import same_for_all
from headstart.training.probe import Floats, HeldRows, Labels, LinearHead, fit_probe

# Rows of features, in memory, that a head is fitted on; of more photos a part is taken.
HELD_ROWS = 10_000


@dataclass(frozen=True)
class Blend:
    """How a head that was trained and one that is fitted anew become one.

    `trained` is the former, from which a deeper step goes on. `regularisation` is that of the fit, chosen on validation
    photos, and so are both temperatures.
    """

    trained: LinearHead
    regularisation: float
    trained_temperature: float
    fitted_temperature: float

    def of(self, trained: LinearHead, fitted: LinearHead) -> LinearHead:
        """Return the head whose logits are the mean of those of two, each at its temperature."""
        one, other = np.float32(0.5 / self.trained_temperature), np.float32(0.5 / self.fitted_temperature)
        return LinearHead(
            one * trained.weight + other * fitted.weight,
            one * trained.bias + other * fitted.bias,
        )


def head_of(network: nn.Module) -> LinearHead:
    """Return a copy of the classifier that a network, or a suffix of one, ends in."""
    weight, bias = (_classifier(network).get_parameter(name).detach().float().cpu() for name in ("weight", "bias"))
    return LinearHead(weight.numpy().copy(), bias.numpy().copy())


def set_head(network: nn.Module, head: LinearHead) -> None:
    """Put a linear head into a network, or a suffix of one, as its classifier."""
    with torch.no_grad():
        _classifier(network).get_parameter("weight").copy_(torch.from_numpy(head.weight))
        _classifier(network).get_parameter("bias").copy_(torch.from_numpy(head.bias))


def _classifier(network: nn.Module) -> nn.Module:
    return list(network.children())[-1]


def choose_blend(
    suffix: nn.Sequential, data: TrainingData, boundary: int, logits: Floats, weights: Floats
) -> tuple[Blend, LinearHead, Floats]:
    """Fit a head on the features of a tuned suffix, and blend it with the one that it has.

    Args:
        suffix: tuned, ending in the classifier; left as it is.
        data: the photos, their activations stored at the boundary.
        boundary: before the suffix.
        logits: (n, num_classes) of the validation photos, by the suffix.
        weights: (num_classes,) a weight per class in the loss.

    Returns:
        The blend, the blended head, and its (n, num_classes) logits of the validation photos.
    """
    features, labels = suffix_features(suffix, data, boundary, "train")
    validation = _features_of(suffix, data.activations("validation", boundary))
    fitted, path = same_for_all(fit_probe(features, labels, validation, data.labels["validation"], weights))
    blend = Blend(
        trained=head_of(suffix),
        regularisation=min(path, key=lambda step: step.validation_loss).regularisation,
        trained_temperature=fit_temperature(logits, data.labels["validation"]),
        fitted_temperature=fit_temperature(fitted.logits(validation), data.labels["validation"]),
    )
    head = blend.of(blend.trained, fitted)
    return blend, head, head.logits(validation)


def blend_again(
    suffix: nn.Sequential, blend: Blend, data: TrainingData, boundary: int, split: str, weights: Floats
) -> None:
    """Blend the head of a suffix with one fitted on a split's photos, by what was chosen on validation photos."""
    features, labels = suffix_features(suffix, data, boundary, split)
    fitted, _ = same_for_all(fit_probe(features, labels, features, labels, weights, (blend.regularisation,)))
    set_head(suffix, blend.of(head_of(suffix), fitted))


def suffix_features(suffix: nn.Sequential, data: TrainingData, boundary: int, split: str) -> tuple[HeldRows, Labels]:
    """Return the features of a split's photos, or of an equal share of each class, and their labels."""
    chosen = data.some_rows(HELD_ROWS, split=split)
    photos = [data.photos[split][row] for row in chosen]
    return _features_of(suffix, data.embedder.rows(photos, 0, boundary)), data.labels[split][chosen]


def _features_of(suffix: nn.Sequential, rows: Rows) -> HeldRows:
    """Return what the suffix's classifier is given of activations."""
    return HeldRows(suffix_outputs(suffix[:-1], rows))
