"""Judging what was trained: its numbers, how far they can be trusted, and which predictions to accept.

Everything that is chosen here is chosen on validation photos, by weights that did not learn from them: the temperature
and the rule of acceptance. The test photos are only measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from headstart.console import Console
from headstart.evaluation.calibration import calibration_error, fit_temperature
from headstart.evaluation.metrics import Probabilities, compared, measure, prediction_table, softmax
from headstart.evaluation.rejection import (
    Rejection,
    accepted_of,
    class_directions,
    coverage_curve,
    distances_to,
    fit_rejection,
)
from headstart.photos.drawing import Photo
from headstart.training.data import TrainingData, pooled_features
from headstart.training.hardware import first_process_first
from headstart.training.heads import head_of
from headstart.training.keeping import Kept
from headstart.training.probe import Floats, LinearHead

# Training photos of each class that its direction is the mean of; fewer where each is computed from its pixels.
_OF_A_CLASS, _OF_A_CLASS_FROM_PIXELS = 100, 20


@dataclass(frozen=True)
class Judgement:
    """What was settled on validation photos: metrics, temperature, calibration before and after it, and acceptance.

    `probabilities` are (n, num_classes) those of the validation photos, by weights that did not learn from them.
    """

    metrics: dict[str, Any]
    probabilities: Probabilities
    temperature: float
    calibration: dict[str, Any]
    rejection: Rejection
    accepted: dict[str, Any]


def embedded_features(
    network: nn.Module, kept: Kept, data: TrainingData, photos: list[Photo], console: Console, what: str
) -> Iterator[Floats]:
    """Yield the (n, num_features) pooled features of photos in turn, from the store as far as it goes."""
    seen = data.at(kept.image_size)
    if kept.boundary:
        with first_process_first():
            seen.embedder.embed(photos, range(1), (kept.boundary,), console, what)
    yield from pooled_features(network, kept.boundary, seen, photos)


def logits_and_distances(
    network: nn.Module, directions: Floats, kept: Kept, data: TrainingData, split: str, console: Console
) -> tuple[Floats, Floats]:
    """Return (n, num_classes) logits of a split's photos, and their (n,) distances to the nearest class."""
    head, logits, distances = head_of(network), [], []
    for features in embedded_features(network, kept, data, data.photos[split], console, split):
        logits.append(features @ head.weight.T + head.bias)
        distances.append(distances_to(directions, features))
    return np.concatenate(logits), np.concatenate(distances)


def judge(network: nn.Module, kept: Kept, data: TrainingData, min_accuracy: float, console: Console) -> Judgement:
    """Settle temperature and acceptance on the validation photos, which the network has not learnt from."""
    labels, directions = data.labels["validation"], typical_directions(network, kept, data, console)
    logits, distances = logits_and_distances(network, directions, kept, data, "validation", console)
    temperature = fit_temperature(logits, labels)
    before, after = softmax(logits), softmax(logits / np.float32(temperature))
    rejection = fit_rejection(directions, distances, after, labels, min_accuracy)
    accepted = rejection.accepts(after.max(axis=1), distances)
    return Judgement(
        metrics=measure(labels, after, data.class_names),
        probabilities=after,
        temperature=temperature,
        calibration={"before": calibration_error(before, labels), "after": calibration_error(after, labels)},
        rejection=rejection,
        accepted=accepted_of(accepted, after.argmax(axis=1) == labels),
    )


def settle(
    network: nn.Module, kept: Kept, data: TrainingData, judgement: Judgement, refitted: bool, console: Console
) -> Rejection:
    """Build the temperature into the final network's classifier, and return the acceptance for its features."""
    with torch.no_grad():
        for parameter in network.get_submodule("classifier").parameters():
            parameter.div_(judgement.temperature)
    if not refitted or kept.step is None:
        return judgement.rejection  # only the classifier has changed, if anything: the features are the same
    return replace(judgement.rejection, directions=typical_directions(network, kept, data, console))


def measure_test(
    network: nn.Module,
    kept: Kept,
    data: TrainingData,
    judgement: Judgement,
    rejection: Rejection,
    head: LinearHead | None,
    console: Console,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Measure the final network on the test photos.

    Args:
        network: with its temperature built in.
        kept: from where the network differs from the frozen one.
        data: the photos.
        judgement: what was settled on validation photos.
        rejection: when to accept.
        head: on the frozen network: what a fine-tuned one is compared with.
        console: shows progress.

    Returns:
        Metrics by name (validation, test, calibration, rejection, majority, comparison), and a row for each photo.
    """
    labels = data.labels["test"]
    logits, distances = logits_and_distances(network, rejection.directions, kept, data, "test", console)
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    accepted = rejection.accepts(confidence, distances)
    strangeness = rejection.strangeness(confidence, distances)
    before = softmax(logits * np.float32(judgement.temperature))
    further = {"accepted": accepted, "strangeness": strangeness.astype(np.float32)}
    paths = [photo.name for photo in data.photos["test"]]
    table = prediction_table(paths, labels, probabilities, data.class_names, further)
    metrics = {
        "validation": judgement.metrics,
        "test": measure(labels, probabilities, data.class_names),
        "calibration": {
            "temperature": judgement.temperature,
            "validation": judgement.calibration,
            "test": {
                "before": calibration_error(before, labels),
                "after": calibration_error(probabilities, labels),
            },
        },
        "rejection": {
            "min_accuracy": rejection.min_accuracy,
            "reached": rejection.reached,
            "told": rejection.told(),
            "validation": judgement.accepted,
            "test": accepted_of(accepted, right),
            "curve": coverage_curve(strangeness, right),
            "outsiders": None,
        },
        "majority": majority(data),
        "comparison": _against(head, kept, data, right),
    }
    return metrics, table


def unlearnt(
    kept: Kept, judgement: Judgement, predictions: pd.DataFrame, class_names: list[str]
) -> Probabilities | None:
    """Return what a fine-tuned network makes of photos whose labels it did not learn; None of a head alone.

    Args:
        kept: what was kept.
        judgement: of the validation photos, before any refit on them.
        predictions: of the test photos, a row for each.
        class_names: in the order of the network's outputs.

    Returns:
        (n, num_classes) probabilities of the validation photos, then the test photos.
    """
    if kept.step is None:
        return None
    test = predictions[[f"p({name})" for name in class_names]].to_numpy(np.float32)
    return np.concatenate([judgement.probabilities, test])


def majority(data: TrainingData) -> dict[str, Any]:
    """Return how often the most frequent training class is right on the test photos: what knowing nothing gives."""
    best = int(np.bincount(data.labels["train"], minlength=len(data.class_names)).argmax())
    return {"class": data.class_names[best], "accuracy": float((data.labels["test"] == best).mean())}


def _against(
    head: LinearHead | None, kept: Kept, data: TrainingData, right: npt.NDArray[np.bool_]
) -> dict[str, Any] | None:
    if head is None or kept.step is None:
        return None
    found = head.logits(data.features("test")).argmax(axis=1) == data.labels["test"]
    return compared("the head alone", found, kept.stage, right)


def typical_directions(network: nn.Module, kept: Kept, data: TrainingData, console: Console) -> Floats:
    """Return the (num_classes, num_features) mean directions of each class's training photos, or of some of them."""
    seen = kept.seen_of(data)
    labels = seen.labels["train"]
    order = np.random.default_rng(0).permutation(len(labels))
    rank = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    chosen = np.sort(order[rank < (_OF_A_CLASS if kept.boundary else _OF_A_CLASS_FROM_PIXELS)])
    photos = [seen.photos["train"][row] for row in chosen]
    features = embedded_features(network, kept, data, photos, console, "train")
    return class_directions(features, labels[chosen], len(data.class_names))
