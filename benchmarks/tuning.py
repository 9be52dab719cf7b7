"""Try settings of one step of fine-tuning on several sets and seeds, on training photos only.

Of each set (from `sets.py`) the photos in `train` are split anew by each seed: 55% to train, 15% to validate, 30% to
measure on. All variants of a set and seed start from the same stored activations and the same probe; the number of
epochs is fixed, not the time. What is kept is chosen as `headstart train` does, by validation loss among the probe, the
last weights, what lies between, and the best of these with a blended head. A file of variants is TOML: a table for
each, named as it shall be called, with fields of `FineTuning` and `start_regularisation` (a multiple of the probe's),
`least_regularisation`, `dropout_rate`, `num_views`, `least_epochs`, `least_updates`, `blend` (false: no blended head),
and `refit_share` and `refit_rate`: the epochs and learning rates of a refit on training and validation photos, as
shares of the step's, which is measured besides. Outcomes are appended to a CSV file, and what stands there already is
not run again.

python benchmarks/tuning.py SETS VARIANTS.toml RESULTS.csv --sets signs digits --seeds 0 1 2 --part stage6
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomllib
import torch
from torch import nn

from headstart.console import Console
from headstart.evaluation.calibration import calibrated_loss_and_accuracy
from headstart.network.backbones import backbone_named, build
from headstart.network.cut import boundary_of, suffix
from headstart.network.weights import load_weights
from headstart.photos.catalog import read_catalog
from headstart.photos.split import SPLITS, split_photos
from headstart.training.costs import PROBE_VIEWS
from headstart.training.data import LEARNING, TrainingData
from headstart.training.embedding import Embedder
from headstart.training.engines import choose_engine
from headstart.training.finetuning import fine_tune, suffix_logits
from headstart.training.heads import Blend, blend_again, choose_blend, set_head
from headstart.training.keeping import INTERPOLATION_SHARES
from headstart.training.optimisation import FineTuning
from headstart.training.probe import STRENGTHS, Floats, LinearHead, ProbeStep, fit_probe
from headstart.training.process import prepare_process
from headstart.training.refitting import REFIT_RATE
from headstart.training.stages import LEAST_AT_START, START_MULTIPLE
from headstart.training.state import State, interpolated, load_state, trained_state
from variants import append, done, parser

CONSOLE = Console(quiet=True)
KEY = ["variant", "set", "seed", "part", "image_size"]


def main() -> None:
    options = _options()
    prepare_process()
    variants = tomllib.loads(options.variants.read_text(encoding="utf-8"))
    seen = done(options.results, KEY)
    for seed in options.seeds:
        for name in options.names:
            keys = {variant: (variant, name, seed, options.part, options.image_size) for variant in variants}
            wanted = [variant for variant in variants if keys[variant] not in seen]
            start = prepared(options, name, seed, [variants[variant] for variant in wanted]) if wanted else None
            for variant in wanted:
                row = dict(zip(KEY, keys[variant], strict=True)) | tuned(start, seed, **variants[variant])
                append(options.results, row)
    print(summary(pd.read_csv(options.results)))


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--part", default="stage6", help="the first part that trains (stage6)")
    options.add_argument("--image-size", type=int, default=160, help="pixels (160)")
    return options.parse_args()


@dataclass(frozen=True)
class Start:
    """Where every variant of a set and seed starts: its photos, the network, the boundary, and the probe."""

    data: TrainingData
    network: nn.Module
    boundary: int
    probe: LinearHead
    regularisation: float


def prepared(options: argparse.Namespace, name: str, seed: int, variants: list[dict[str, Any]]) -> Start:
    """Embed a set, split by a seed, and fit the probe on its training photos."""
    catalog, backbone = read_catalog(options.sets / name / "train"), backbone_named("lite0")
    catalog = replace(catalog, photos=split_photos(catalog.photos, seed, 0.15, 0.3))
    torch.manual_seed(seed)
    network = build(backbone, len(catalog.class_names))
    identity = {"backbone": "lite0", "weights": load_weights(network, backbone).identity}
    preprocessing, cache = backbone.preprocessing("crop", options.image_size), options.results.parent / "tuning-cache"
    embedder = Embedder(catalog.root, network, identity, preprocessing, "strong", seed, choose_engine(), cache)
    data, boundary = TrainingData(catalog, embedder), boundary_of(network, options.part)
    views = range(max([PROBE_VIEWS, *(variant.get("num_views", 2) for variant in variants)]))
    every = [photo for split in SPLITS for photo in data.photos[split]]
    embedder.embed(every, range(1), (boundary, embedder.features_boundary), CONSOLE, "photos")
    embedder.embed(data.photos[LEARNING], views, (boundary, embedder.features_boundary), CONSOLE, "views")
    probe, path = probe_of(data, STRENGTHS)
    return Start(data, network, boundary, probe, min(path, key=lambda step: step.validation_loss).regularisation)


def probe_of(
    data: TrainingData, strengths: tuple[float, ...], split: str = "train"
) -> tuple[LinearHead, list[ProbeStep]]:
    """Fit the probe on the views of a split's photos; return it with the path of its strengths."""
    rows, labels = data.features(split, PROBE_VIEWS), np.tile(data.labels[split], PROBE_VIEWS)
    weights = np.ones(len(data.class_names), np.float32)
    return fit_probe(rows, labels, data.features("validation"), data.labels["validation"], weights, strengths)


def tuned(
    start: Start,
    seed: int,
    start_regularisation: float = START_MULTIPLE,
    least_regularisation: float = LEAST_AT_START,
    dropout_rate: float = 0.2,
    num_views: int = 2,
    least_epochs: int = 8,
    least_updates: int = 90,
    refit_share: float = 0.0,
    refit_rate: float = REFIT_RATE,
    blend: bool = True,
    **settings: Any,
) -> dict[str, float]:
    """Fine-tune once; return accuracies in percent and log losses (at the best temperature) on photos held out."""
    data, network = start.data, copy.deepcopy(start.network)
    weights, validation = np.ones(len(data.class_names), np.float32), data.labels["validation"]
    softer = max(start_regularisation * start.regularisation, least_regularisation)
    set_head(network, probe_of(data, (softer,))[0])
    trainable = suffix(network, start.boundary, data.embedder.preprocessing, dropout_rate)
    before, batch_size = trained_state(trainable), settings.pop("batch_size", 16)
    epochs = max(least_epochs, math.ceil(least_updates * batch_size / len(data.labels["train"])))
    chosen = FineTuning(epochs=epochs, batch_size=batch_size, patience=1000, keep="last", **settings)
    train = data.training_rows("train", start.boundary, num_views)
    seen = {split: data.activations(split, start.boundary) for split in ("validation", "test")}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.safetensors"
        after, history = fine_tune(
            trainable, train, data.labels["train"], seen["validation"], validation, weights, chosen, seed, checkpoint
        )
    measured = {"probe": {split: start.probe.logits(data.features(split)) for split in seen}}
    shares = {f"{share:.0%}": share for share in (*INTERPOLATION_SHARES, 1.0)}
    for name, share in shares.items():
        load_state(trainable, interpolated(before, after, share))
        measured[name] = {split: suffix_logits(trainable, seen[split]) for split in seen}
    losses = {
        name: calibrated_loss_and_accuracy(found["validation"], validation)[0] for name, found in measured.items()
    }
    best = min(losses, key=lambda name: losses[name])
    share, chosen_blend = shares.get(best, 1.0), None
    if blend and best != "probe":
        load_state(trainable, interpolated(before, after, share))
        found, head, logits = choose_blend(trainable, data, start.boundary, measured[best]["validation"], weights)
        if calibrated_loss_and_accuracy(logits, validation)[0] < losses[best]:
            set_head(trainable, head)
            best, chosen_blend = f"{best}, blended", found
            measured[best] = {"test": suffix_logits(trainable, seen["test"])}
    outcome: dict[str, Any] = {"epochs": epochs, "kept_is": best}
    told = {"probe": measured["probe"]["test"], "last": measured["100%"]["test"], "kept": measured[best]["test"]}
    if refit_share:
        rates = {name: refit_rate * getattr(chosen, name) for name in ("learning_rate", "head_learning_rate")}
        refit = replace(chosen, epochs=max(1, round(refit_share * epochs)), **rates)
        ways = before, after, share, chosen_blend
        told["refitted"] = refitted(start, network, trainable, ways, softer, refit, num_views, seed)
    for name, logits in told.items():
        loss, accuracy = calibrated_loss_and_accuracy(logits, data.labels["test"])
        outcome |= {name: round(100 * accuracy, 2), f"{name}_loss": round(loss, 4)}
    lowest = min(epoch.validation_accuracy for epoch in history)
    return outcome | {"lowest_validation": round(100 * lowest, 1), "seconds": sum(epoch.seconds for epoch in history)}


def refitted(
    start: Start,
    network: nn.Module,
    trainable: nn.Sequential,
    ways: tuple[State, State, float, Blend | None],
    softer: float,
    settings: FineTuning,
    num_views: int,
    seed: int,
) -> Floats:
    """Train on with validation photos as well, as `train` does, and return the logits of the photos held out."""
    data, labels = start.data, start.data.labels[LEARNING]
    before, after, share, blend = ways
    if share < 1:
        load_state(trainable, before)
        set_head(network, probe_of(data, (softer,), LEARNING)[0])
        before = trained_state(trainable)
    load_state(trainable, after)
    rows, weights = data.training_rows(LEARNING, start.boundary, num_views), np.ones(len(data.class_names), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.safetensors"
        end, _ = fine_tune(trainable, rows, labels, None, labels[:0], weights, settings, seed + 1, checkpoint)
    load_state(trainable, interpolated(before, end, share))
    if blend is not None:
        blend_again(trainable, blend, data, start.boundary, LEARNING, weights)
    return suffix_logits(trainable, data.activations("test", start.boundary))


def summary(results: pd.DataFrame) -> str:
    """Return means over the seeds, by part, variant and set, and over the sets."""
    columns = ["probe", "last", "kept", "kept_loss", "seconds"]
    by_set = results.pivot_table("kept", ["part", "variant"], "set", "mean")
    means = results.groupby(["part", "variant", "set"])[columns].mean().groupby(["part", "variant"]).mean()
    return f"{by_set.round(1).to_string()}\n\n{means.round(3).to_string()}"


if __name__ == "__main__":
    main()
