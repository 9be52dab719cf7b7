"""Headstart's probe next to scikit-learn's logistic regression, on the same stored features.

Each round splits the photos anew, its number being the seed. Both sides try the same strengths of regularisation, from
the strongest, start each fit from the one before, stop once validation loss has risen three times, and keep the
strength of least validation loss. scikit-learn gets standardised features in float32 and `C = 1 / (photos * strength)`,
which is the same penalty in its units; Headstart scales features by the square root of their deviation, so that equal
strengths are alike but not equal. Seconds count from stored features to the chosen head. With `--cold`, scikit-learn is
used as its examples do: every C from scratch.

Products this small gain nothing from BLAS's threads, which on a busy machine wait for each other; Headstart turns them
off. So scikit-learn runs twice: as it is, and with one BLAS thread, which tells the method from the threads.

python benchmarks/probe.py PHOTOS
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from headstart.console import Console
from headstart.network.backbones import backbone_named, build
from headstart.network.cut import last_boundary
from headstart.network.weights import load_weights
from headstart.photos.catalog import Catalog, read_catalog
from headstart.photos.split import SPLITS, split_photos
from headstart.training.embedding import Embedder, Photo
from headstart.training.engines import choose_engine
from headstart.training.probe import STRENGTHS, Floats, Labels, fit_probe, loss_and_accuracy
from headstart.training.store import StoredRows
from measuring import alternate, note, ratios, report, spread, table


@dataclass(frozen=True)
class Result:
    """One choice of a head: seconds, fits, the chosen strength, and measures of it."""

    seconds: float
    fits: int
    strength: float
    validation_loss: float
    validation: float
    test: float
    unconverged: int = 0


@dataclass(frozen=True)
class Split:
    """The stored features of one split, and its class indices."""

    features: StoredRows
    labels: Labels


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as cache:
        catalog, embedder = _embedded(options, Path(cache))
        rounds = [_splits(catalog, embedder, seed) for seed in range(options.seeds)]
        num_classes = len(catalog.class_names)
        contestants = {
            "Headstart": lambda seed: _headstart(rounds[seed], num_classes),
            "scikit-learn": lambda seed: _scikit_learn(rounds[seed], options),
            "scikit-learn, one BLAS thread": lambda seed: _on_one_thread(rounds[seed], options),
        }
        results = alternate(contestants, options.seeds)
        train, validation, test = (len(rounds[0][name].labels) for name in SPLITS)

    facts = (
        f"{train:,} training, {validation:,} validation and {test:,} test photos of {num_classes} classes, lite0 at "
        f"{options.image_size} pixels, {len(STRENGTHS)} strengths. scikit-learn: lbfgs, at most "
        f"{options.max_iterations} iterations a fit, {'each from zero' if options.cold else 'warm started'}. "
        f"Median (least-greatest) of {options.seeds} seeds; ratios are taken seed by seed."
    )
    report("Probe", [facts, _summary(results), _by_seed(results)], ["scikit-learn", "scipy"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, help="a folder with a folder per class")
    parser.add_argument("--seeds", type=int, default=3, help="rounds, each with a split of its own (3)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels (224)")
    parser.add_argument("--max-iterations", type=int, default=1000, help="of scikit-learn, for each strength (1000)")
    parser.add_argument("--cold", action="store_true", help="scikit-learn fits each C from scratch, and all of them")
    return parser.parse_args()


def _embedded(options: argparse.Namespace, cache: Path) -> tuple[Catalog, Embedder]:
    """Embed every photo once; those that cannot be read are left out."""
    backbone = backbone_named("lite0")
    network = build(backbone, num_classes=2)
    weights = load_weights(network, backbone)
    catalog = read_catalog(options.photos)
    identity = {"backbone": backbone.name, "weights": weights.identity}
    preprocessing = backbone.preprocessing("squash", options.image_size)
    boundaries = (last_boundary(network),)
    embedder = Embedder(catalog.root, network, identity, preprocessing, "none", 0, choose_engine(), cache)
    note(f"embedding {len(catalog.photos):,} photos")
    problems, _ = embedder.embed(_photos(catalog.photos), range(1), boundaries, Console(quiet=True), "photos")
    return catalog.without(problems), embedder


def _photos(photos: pd.DataFrame) -> list[Photo]:
    return [Photo(path, digest) for path, digest in zip(photos["path"], photos["digest"], strict=True)]


def _splits(catalog: Catalog, embedder: Embedder, seed: int) -> dict[str, Split]:
    """Split the photos as `headstart train` would with this seed."""
    photos = split_photos(catalog.photos, seed, validation_fraction=0.15, test_fraction=0.15)
    splits = {}
    for name in SPLITS:
        rows = photos[photos["split"] == name]
        labels = np.array([catalog.class_names.index(label) for label in rows["label"]], np.int64)
        splits[name] = Split(embedder.rows(_photos(rows), 0, embedder.features_boundary), labels)
    return splits


def _headstart(splits: dict[str, Split], num_classes: int) -> Result:
    train, validation, test = (splits[name] for name in SPLITS)
    weights = np.ones(num_classes, np.float32)
    started = time.perf_counter()
    head, path = fit_probe(train.features, train.labels, validation.features, validation.labels, weights)
    seconds = time.perf_counter() - started
    best = min(path, key=lambda step: step.validation_loss)
    _, accuracy = loss_and_accuracy(head.logits(test.features), test.labels)
    return Result(seconds, len(path), best.regularisation, best.validation_loss, best.validation_accuracy, accuracy)


def _scikit_learn(splits: dict[str, Split], options: argparse.Namespace) -> Result:
    started = time.perf_counter()
    scaler = StandardScaler().fit(_array(splits["train"]))
    features = {name: scaler.transform(_array(split)) for name, split in splits.items()}
    labels = {name: split.labels for name, split in splits.items()}
    model = LogisticRegression(max_iter=options.max_iterations, warm_start=not options.cold)
    unconverged = 0
    losses: list[float] = []
    accuracies: list[float] = []
    models: list[LogisticRegression] = []
    for strength in STRENGTHS:
        model.set_params(C=1 / (len(labels["train"]) * strength))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(features["train"], labels["train"])
        unconverged += any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        loss, accuracy = loss_and_accuracy(_logits(model, features["validation"]), labels["validation"])
        losses.append(loss)
        accuracies.append(accuracy)
        models.append(copy.deepcopy(model))
        if not options.cold and len(losses) > 3 and min(losses[-3:]) > min(losses):
            break
    seconds = time.perf_counter() - started
    best = int(np.argmin(losses))
    test = float(models[best].score(features["test"], labels["test"]))
    return Result(seconds, len(losses), STRENGTHS[best], losses[best], accuracies[best], test, unconverged)


def _on_one_thread(splits: dict[str, Split], options: argparse.Namespace) -> Result:
    with threadpool_limits(1, "blas"):
        return _scikit_learn(splits, options)


def _array(split: Split) -> Floats:
    return split.features.take(slice(None)).astype(np.float32)


def _logits(model: LogisticRegression, features: Floats) -> Floats:
    logits = np.asarray(model.decision_function(features), np.float32)
    # Of two classes scikit-learn gives the second's logit alone.
    return logits if logits.ndim == 2 else np.stack([np.zeros_like(logits), logits], axis=1)


def _summary(results: dict[str, list[Result]]) -> str:
    ours = [result.seconds for result in results["Headstart"]]
    rows = []
    for name, repeats in results.items():
        seconds = [result.seconds for result in repeats]
        rows.append(
            [
                name,
                spread(seconds, ".2f"),
                spread(ratios(seconds, ours), ".2f"),
                spread([result.fits for result in repeats], ".0f"),
                spread([result.validation_loss for result in repeats], ".3f"),
                spread([100 * result.validation for result in repeats]),
                spread([100 * result.test for result in repeats]),
                str(sum(result.unconverged for result in repeats)),
            ]
        )
    header = [
        "",
        "seconds",
        "this / Headstart",
        "fits",
        "validation loss",
        "validation %",
        "test %",
        "unconverged fits",
    ]
    return table(header, rows)


def _by_seed(results: dict[str, list[Result]]) -> str:
    rows = [
        [f"seed {seed}, {name}", f"{result.strength:.0e}", f"{100 * result.validation:.1f}", f"{100 * result.test:.1f}"]
        for seed in range(len(results["Headstart"]))
        for name, result in ((name, repeats[seed]) for name, repeats in results.items())
    ]
    return table(["", "strength chosen", "validation %", "test %"], rows)


if __name__ == "__main__":
    main()
