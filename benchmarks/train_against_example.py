"""Training with Headstart next to the recipe of the Keras example, done the usual way in PyTorch.

"Image classification via fine-tuning with EfficientNet" (keras.io) runs the frozen network over augmented photos
anew in every epoch. Here that recipe starts from the same weights, on the split that Headstart made in that round:

- photos decoded, squashed to the network's size and kept in memory as uint8;
- every epoch and photo a rotation by up to 0.15 of a turn and both flips, drawn anew, a batch in one resampling (the
  example also shifts and changes contrast, which would only take longer);
- batch normalisation, dropout of 0.2 and a dense layer; Adam at 1e-2, batches of 64, 25 epochs, the network frozen;
- then the last block and the head convolution as well, the network's batch normalisation frozen; Adam at 1e-4,
  10 epochs. Validation accuracy is measured after every epoch, test accuracy once, all with the last weights.

Contestants: (A) `headstart train --head example`: the example's head with the example's epochs on stored features,
then fine-tuning for the same number of epochs; (B) `headstart train` as it is; (C) the above. Headstart runs as its
users run it: its own process, a new cache and a new run folder each time. Its frozen stage is embedding (decoding,
the network's conversion and all views included) and the head or the probe; that of C is decoding and the frozen
epochs. Both totals are from start to finish, of A and B including the start of Python, the report and the artefact.

C takes long: unless `--full` is given, a few epochs of each stage are timed and multiplied.

OMP_WAIT_POLICY=passive python benchmarks/train_against_example.py PHOTOS [--full]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from headstart.network.backbones import backbone_named, build, num_features
from headstart.network.cut import boundary_before_last_blocks, last_boundary, pooled, prefix, set_trainable
from headstart.network.weights import load_weights
from headstart.photos.decode import decode, read_bytes
from headstart.photos.loading import ahead
from headstart.photos.split import SPLITS
from headstart.photos.views import evaluation_view
from measuring import alternate, note, ratios, report, spread, table

EXAMPLE, DEFAULT, USUAL = "A: headstart, example head", "B: headstart, default", "C: example in PyTorch"
BATCH_SIZE = 64
ROTATION = 0.15 * 2 * math.pi
ACCURACIES = ("frozen_validation", "validation", "test")


@dataclass(frozen=True)
class Result:
    """One training: seconds, and accuracies from 0 to 1, which an extrapolated training has none of."""

    frozen_seconds: float
    total_seconds: float
    frozen_epochs: str
    tuned_epochs: str
    frozen_validation: float | None
    validation: float | None
    test: float | None


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        epochs = str(options.epochs_tuned)
        example = ["--head", "example", "--unfreeze", "1", "--epochs", epochs, "--patience", epochs, "--num-views", "4"]
        example += ["--augmentation", "photo", "--batch-size", "32", "--no-refit"]

        def run_a(number: int) -> Result:
            return _headstart(options.photos, folder / f"a{number}", number, options.image_size, example)

        def run_b(number: int) -> Result:
            return _headstart(options.photos, folder / f"b{number}", number, options.image_size, [])

        def run_c(number: int) -> Result:
            return _usual_way(options.photos, folder / f"a{number}" / "run" / "catalog.csv", number, options)

        results = alternate({EXAMPLE: run_a, DEFAULT: run_b, USUAL: run_c}, options.repeats)
    report("Training, next to the Keras example's recipe", [_facts(options), _table(results)], ["torchvision"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, help="a folder with a folder per class")
    parser.add_argument("--epochs-frozen", type=int, default=25, help="of C; A has the example's 25 (25)")
    parser.add_argument("--epochs-tuned", type=int, default=10, help="of A and C (10)")
    parser.add_argument("--repeats", type=int, default=1, help="rounds, each with its number as the seed (1)")
    parser.add_argument("--measured-epochs", type=int, default=2, help="of each stage of C, then multiplied (2)")
    parser.add_argument("--full", action="store_true", help="run every epoch of C, which also gives its accuracy")
    parser.add_argument("--image-size", type=int, default=224, help="pixels (224)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of C (PyTorch's own choice)")
    parser.add_argument("--channels-last", action="store_true", help="C in channels_last, unlike the usual script")
    return parser.parse_args()


def _headstart(photos: Path, folder: Path, seed: int, image_size: int, choices: list[str]) -> Result:
    """Run `headstart train` in a process of its own, and read what it measured."""
    program = Path(sys.executable).with_name("headstart")
    run = folder / "run"
    arguments = ["train", photos, "-o", run, "--cache", folder / "cache", "--seed", seed, "--image-size", image_size]
    started = time.perf_counter()
    subprocess.run([str(part) for part in (program, *arguments, "--quiet", *choices)], check=True)
    total = time.perf_counter() - started
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    first = next(iter(metrics["stages"]))
    epochs = pd.read_csv(run / "history.csv")["stage"].value_counts()
    return Result(
        frozen_seconds=metrics["seconds"]["embedding"] + metrics["stages"][first]["seconds"],
        total_seconds=total,
        frozen_epochs=str(epochs[first]) if first == "example head" else first,
        tuned_epochs=str(epochs[epochs.index.str.startswith("fine-tuning")].sum()),
        frozen_validation=metrics["stages"][first]["validation"]["accuracy"],
        validation=metrics["validation"]["accuracy"],
        test=metrics["test"]["accuracy"],
    )


@dataclass(frozen=True)
class Split:
    """The photos of one split in memory: (n, 3, size, size) uint8 pixels and (n,) class indices."""

    pixels: torch.Tensor
    labels: torch.Tensor


def _usual_way(photos: Path, catalog: Path, seed: int, options: argparse.Namespace) -> Result:
    """Train the example's recipe, or a few epochs of it."""
    torch.manual_seed(seed)
    started = time.perf_counter()
    splits, num_classes = _decoded(photos, catalog, options.image_size)
    decoding = time.perf_counter() - started

    training = _Training(num_classes, options)
    frozen_epochs, tuned_epochs = options.epochs_frozen, options.epochs_tuned
    frozen = _epochs(training, frozen_epochs, splits, options, 1e-2, "frozen")
    frozen_accuracy = training.accuracy(splits["validation"]) if options.full else None
    training.unfreeze()
    tuned = _epochs(training, tuned_epochs, splits, options, 1e-4, "tuned")

    testing = time.perf_counter()
    test = training.accuracy(splits["test"])
    frozen_seconds = decoding + _scaled(frozen, frozen_epochs)
    return Result(
        frozen_seconds=frozen_seconds,
        total_seconds=frozen_seconds + _scaled(tuned, tuned_epochs) + time.perf_counter() - testing,
        frozen_epochs=str(frozen_epochs),
        tuned_epochs=str(tuned_epochs),
        frozen_validation=frozen_accuracy,
        validation=training.accuracy(splits["validation"]) if options.full else None,
        test=test if options.full else None,
    )


def _scaled(seconds: list[float], epochs: int) -> float:
    """Return what all epochs take, from those that were timed."""
    return statistics.mean(seconds) * epochs if seconds else 0.0


def _decoded(photos: Path, catalog: Path, size: int) -> tuple[dict[str, Split], int]:
    """Decode every photo of a run's catalog once, by the split that the run made."""
    every = pd.read_csv(catalog, dtype=str, keep_default_na=False)
    class_names = sorted(set(every["label"]))
    preprocessing = backbone_named("lite0").preprocessing("squash", size)
    splits = {}
    for name in SPLITS:
        rows = every[every["split"] == name]
        images = ahead(
            [photos / path for path in rows["path"]],
            lambda path: evaluation_view(decode(read_bytes(path), preprocessing.decode_short_side), preprocessing),
        )
        pixels = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
        for place, image in zip(pixels, images, strict=True):
            place.copy_(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        splits[name] = Split(pixels, torch.tensor([class_names.index(label) for label in rows["label"]]))
    return splits, len(class_names)


class _Training:
    """The network in its parts: what stays frozen, what trains of it, and the example's head."""

    def __init__(self, num_classes: int, options: argparse.Namespace) -> None:
        backbone = backbone_named("lite0")
        self._network = build(backbone, num_classes)
        load_weights(self._network, backbone)
        self._preprocessing = backbone.preprocessing("squash", options.image_size)
        self._format = torch.channels_last if options.channels_last else torch.contiguous_format
        whole = prefix(self._network, last_boundary(self._network), self._preprocessing)
        self._frozen: nn.Module = whole.to(memory_format=self._format)
        self._tuned: nn.Module = nn.Identity()
        columns = num_features(self._network)
        dense = nn.Linear(columns, num_classes)
        nn.init.xavier_uniform_(dense.weight)
        nn.init.zeros_(dense.bias)
        # Keras's constants; its momentum of 0.99 counts from the other end.
        self._head = nn.Sequential(nn.BatchNorm1d(columns, eps=1e-3, momentum=0.01), nn.Dropout(0.2), dense)
        self.parameters = list(self._head.parameters())

    def unfreeze(self) -> None:
        """Let the last block and the head convolution train, without their batch normalisation."""
        boundary = boundary_before_last_blocks(self._network, 1)
        self._frozen = prefix(self._network, boundary, self._preprocessing)
        self._tuned = pooled(self._network, boundary)
        self.parameters = [*set_trainable(self._tuned), *self._head.parameters()]

    def epoch(self, split: Split, optimiser: torch.optim.Optimizer) -> None:
        """Train on every photo of a split once, augmented."""
        self._head.train()
        if not isinstance(self._tuned, nn.Identity):
            set_trainable(self._tuned)
        for pixels, labels in _batches(split, torch.randperm(len(split.labels))):
            if len(labels) < 2:
                continue  # batch normalisation of a single photo is undefined
            loss = F.cross_entropy(self._logits(_augmented(pixels)), labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    @torch.no_grad()
    def accuracy(self, split: Split) -> float:
        """Return the accuracy (0 to 1) on a split, in evaluation mode."""
        self._head.eval()
        self._tuned.eval()
        batches = _batches(split, torch.arange(len(split.labels)))
        correct = [int((self._logits(pixels.float()).argmax(1) == labels).sum()) for pixels, labels in batches]
        return sum(correct) / len(split.labels)

    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            activations = self._frozen(pixels.contiguous(memory_format=self._format))
        logits: torch.Tensor = self._head(self._tuned(activations))
        return logits


def _batches(split: Split, order: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for photos in torch.split(order, BATCH_SIZE):
        yield split.pixels[photos], split.labels[photos]


def _augmented(pixels: torch.Tensor) -> torch.Tensor:
    """Rotate and flip each photo of a batch by a draw of its own; beyond its edges it is mirrored, as in Keras."""
    count = len(pixels)
    angles = (2 * torch.rand(count) - 1) * ROTATION
    flip_x, flip_y = 2.0 * torch.randint(0, 2, (2, count)) - 1
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros(count)
    rows = [cosine * flip_x, -sine * flip_x, zero], [sine * flip_y, cosine * flip_y, zero]
    matrices = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = F.affine_grid(matrices, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, padding_mode="reflection", align_corners=False)


def _epochs(
    training: _Training,
    epochs: int,
    splits: dict[str, Split],
    options: argparse.Namespace,
    learning_rate: float,
    stage: str,
) -> list[float]:
    """Train a stage, or its first epochs, and return each epoch's seconds, validation included."""
    optimiser = torch.optim.Adam(training.parameters, learning_rate, eps=1e-7)  # Keras's epsilon
    seconds = []
    for number in range(epochs if options.full else min(epochs, options.measured_epochs)):
        started = time.perf_counter()
        training.epoch(splits["train"], optimiser)
        accuracy = training.accuracy(splits["validation"])
        seconds.append(time.perf_counter() - started)
        note(f"{stage} epoch {number + 1}: {seconds[-1]:.1f} s, validation accuracy {accuracy:.3f}")
    return seconds


def _facts(options: argparse.Namespace) -> str:
    how = (
        "C ran in full."
        if options.full
        else f"**The times of C are extrapolated from {options.measured_epochs} epoch(s) of each stage**, "
        "so it has no accuracy."
    )
    layout = "channels_last" if options.channels_last else "the default layout"
    return (
        f"Lite0 at {options.image_size} pixels; C in {layout}, {torch.get_num_threads()} threads. {how} "
        f"Median (least-greatest) of {options.repeats} rounds; ratios are taken round by round."
    )


def _table(results: dict[str, list[Result]]) -> str:
    frozen_of_a = [result.frozen_seconds for result in results[EXAMPLE]]
    total_of_b = [result.total_seconds for result in results[DEFAULT]]
    rows = []
    for name, repeats in results.items():
        frozen, total = ([getattr(result, f"{kind}_seconds") for result in repeats] for kind in ("frozen", "total"))
        rows.append(
            [
                name,
                " / ".join(sorted({result.frozen_epochs for result in repeats})),
                spread(frozen),
                spread(ratios(frozen, frozen_of_a), ".2f"),
                " / ".join(sorted({result.tuned_epochs for result in repeats}, key=int)),
                spread(total),
                spread(ratios(total, total_of_b), ".2f"),
                *(_accuracy([getattr(result, kind) for result in repeats]) for kind in ACCURACIES),
            ]
        )
    header = ["", "frozen epochs", "frozen stage, s", "this / A", "tuned epochs", "total, s", "this / B"]
    return table([*header, "validation %, frozen", "validation %", "test %"], rows)


def _accuracy(values: list[float | None]) -> str:
    measured = [100 * value for value in values if value is not None]
    return spread(measured) if measured else "-"


if __name__ == "__main__":
    main()
