"""What a GPU makes of Headstart: whether its numbers are the CPU's, and how fast decoding, embedding and training are.

- numbers: the same photos and seed with the GPU and without it, at a fixed depth: features, and what a whole run says;
- decoding: views/s by the number of threads and of processes, because a GPU has to be fed;
- embedding: whole, next to the engine on pixels in memory and to decoding alone: the floor is the slower of the two;
- training: photos/s of steps at each depth and batch size, launched kernel by kernel, recorded as Headstart does it,
  and compiled by PyTorch;
- runs: `headstart train` within its budget, with `--profile`.

python benchmarks/gpu.py PHOTOS [PHOTOS ...] [--parts decoding training ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from headstart.console import Console
from headstart.network.backbones import backbone_named, build
from headstart.network.cut import ActivationsAt, boundary_of, last_boundary, suffix
from headstart.network.weights import load_weights
from headstart.photos import loading
from headstart.photos.catalog import read_catalog
from headstart.photos.drawing import Drawing, Job, Photo
from headstart.photos.loading import ahead, num_workers, spread
from headstart.photos.views import Preprocessing
from headstart.training.data import photos_of
from headstart.training.embedding import Embedder
from headstart.training.engines import choose_engine, open_engine
from headstart.training.hardware import hardware
from headstart.training.optimisation import FineTuning
from headstart.training.trainer import Trainer
from measuring import note, report, table

SHAPES = (("stage6", 8), ("stage6", 64), ("stage4", 16), ("all", 16), ("all", 64))
THREADS, PROCESSES = (2, 16), (4, 16)
STEPS, COMPILED = 60, (("all", 16), ("all", 64))
FIXED = ("--budget=none", "--unfreeze=stage6", "--epochs=6", "--num-views=2")
IDENTITY = {"backbone": "lite0", "weights": "imagenet"}


def main() -> None:
    options = _options()
    network = build(backbone_named("lite0"), num_classes=20)
    weights = load_weights(network, backbone_named("lite0"))
    preprocessing = backbone_named("lite0").preprocessing("squash", 224, weights.normalisation)
    catalog = read_catalog(options.photos[0])
    photos, drawing = photos_of(catalog.photos), Drawing(catalog.root, preprocessing, "strong", 0)
    parts: dict[str, Callable[[], list[str]]] = {
        "numbers": lambda: _numbers(drawing, photos, network, options.photos[0]),
        "decoding": lambda: _decoding(drawing, photos),
        "embedding": lambda: _embedding(drawing, photos, network),
        "training": lambda: _training(network, preprocessing, compiled=False),
        "compiled": lambda: _training(network, preprocessing, compiled=True),
        "runs": lambda: _runs(options.photos, options.budgets),
    }
    told = [f"GPU: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}"]
    for part in options.parts or list(parts):
        note(part)
        started = time.perf_counter()
        told += parts[part]()
        note(f"{part} took {time.perf_counter() - started:.0f} s")
        print("\n\n".join(told[-2:]), flush=True)  # what is there, should the time run out
    report("GPU", told)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+", help="folders with a folder per class")
    parser.add_argument("--budgets", nargs="+", default=["1m"], help="of the runs (1m)")
    names = ("numbers", "decoding", "embedding", "training", "compiled", "runs")
    parser.add_argument("--parts", nargs="+", choices=names, help="only these")
    return parser.parse_args()


def _numbers(drawing: Drawing, photos: Sequence[Photo], network: nn.Module, folder: Path) -> list[str]:
    """Compare features, and the probabilities of a run whose depth and epochs are given."""
    pixels = np.stack([drawing.draw(Job(photo, (0,))).pixels[0] for photo in photos[:64]])
    preprocessing = drawing.preprocessing
    exact = ActivationsAt(network, (last_boundary(network),), preprocessing)
    with torch.inference_mode():
        reference = exact(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())[0].double().numpy()
    with tempfile.TemporaryDirectory() as cache:
        found = open_engine(choose_engine(), exact, preprocessing.image_size, Path(cache)).infer(pixels)[0]
    error = np.linalg.norm(found - reference) / np.linalg.norm(reference)
    with tempfile.TemporaryDirectory() as target:
        outcomes = {}
        for name, settings in (("GPU", {}), ("CPU", {"CUDA_VISIBLE_DEVICES": ""})):
            _train(folder, Path(target) / name, [*FIXED], settings)
            metrics = json.loads((Path(target) / name / "metrics.json").read_text())
            predictions = pd.read_csv(Path(target) / name / "predictions.csv")
            outcomes[name] = metrics["test"]["accuracy"], predictions
        gpu, cpu = outcomes["GPU"][1], outcomes["CPU"][1]
    same = (gpu["prediction"] == cpu["prediction"]).mean()
    apart = (gpu["probability"] - cpu["probability"]).abs()
    accuracies = (f"{100 * outcomes[name][0]:.2f}% on the {name}" for name in outcomes)
    return [
        f"Numbers: the engine's features differ from the CPU's float32 by {error:.1e} of their norm. A run from the "
        f"same seed, fine-tuned from stage6 in 6 epochs ({folder.name}): test accuracy {', '.join(accuracies)}; "
        f"{100 * same:.1f}% of {len(gpu)} predictions are the same; probabilities differ by {apart.median():.4f} in "
        f"the median, {apart.max():.3f} at most."
    ]


def _decoding(drawing: Drawing, photos: Sequence[Photo]) -> list[str]:
    """Measure views/s of drawing evaluation views and augmented ones, with so many threads and processes."""
    rows = []
    for workers, kind in [
        *((threads, "threads") for threads in THREADS),
        *((count, "processes") for count in PROCESSES),
    ]:
        loading.num_workers = lambda workers=workers: workers
        row = [f"{workers} {kind}"]
        for view in (0, 1):
            jobs = [Job(photo, (view,)) for photo in (*photos, *photos)]
            run = partial(spread, among=loading.FEWEST_PHOTOS) if kind == "processes" else ahead
            list(run(jobs[:256], drawing.draw))
            row.append(f"{_speed(lambda run=run, jobs=jobs: list(run(jobs, drawing.draw)), len(jobs)):,.0f}")
        rows.append(row)
        note(" ".join(row))
    loading.num_workers = num_workers
    return ["Decoding and drawing, views/s:", table(["", "evaluation views", "augmented views"], rows)]


def _speed(work: Callable[[], Any], count: int) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def _embedding(drawing: Drawing, photos: Sequence[Photo], network: nn.Module) -> list[str]:
    """Measure photos/s of embedding, with the features alone and with what stage4 trains from as well."""
    rows = []
    many = [Photo(photo.name, f"{photo.digest} {number}") for number in range(6) for photo in photos]
    for name, boundaries in (
        ("features", (last_boundary(network),)),
        ("features, and what stage4 trains from", (boundary_of(network, "stage4"), last_boundary(network))),
    ):
        with tempfile.TemporaryDirectory() as cache:
            how = drawing.preprocessing, drawing.augmentation, drawing.seed, choose_engine(), Path(cache)
            embedder = Embedder(drawing.root, network, IDENTITY, *how)
            engine, decoder = embedder.engine_speed(boundaries), embedder.decoding_speed(many, (0,))
            embed = partial(embedder.embed, many, range(1), boundaries, Console(quiet=True), "")
            whole = _speed(embed, len(many))
        row = [name, *(f"{value:,.0f}" for value in (engine, decoder, whole)), f"{whole / min(engine, decoder):.2f}"]
        rows.append(row)
        note(" ".join(row))
    return ["Embedding, photos/s:", table(["", "engine", "decoder", "embedded", "of the slower"], rows)]


def _training(network: nn.Module, preprocessing: Preprocessing, compiled: bool) -> list[str]:
    """Measure photos/s of training steps, each depth and batch size in each of the ways to run a pass."""
    rows = []
    for depth, size in COMPILED if compiled else SHAPES:
        boundary = boundary_of(network, depth)
        with torch.inference_mode():
            image = torch.zeros(1, 3, preprocessing.image_size, preprocessing.image_size)
            row = ActivationsAt(network, (boundary,), preprocessing)(image)[0][0] if boundary else image[0]
        for way in ("compiled",) if compiled else ("kernel by kernel", "recorded"):
            trainable = suffix(build(backbone_named("lite0"), 20), boundary, preprocessing)
            seconds, first = _steps(trainable, tuple(row.shape), size, way)
            rows.append([f"{depth}, batches of {size}, {way}", f"{1000 * seconds:.2f}", f"{size / seconds:,.0f}"])
            rows[-1].append(f"{first:.1f}")
            note(" ".join(rows[-1]))
    return ["Training steps:", table(["", "ms/step", "photos/s", "first step, s"], rows)]


def _steps(trainable: nn.Module, shape: tuple[int, ...], size: int, way: str) -> tuple[float, float]:
    """Return the seconds of a step, and those of the first one, which chooses kernels, records or compiles."""
    where, settings = hardware(), FineTuning(batch_size=size)
    trainable.to(where.device).to(memory_format=torch.channels_last)
    trainer = Trainer(trainable, settings, where, steps_per_epoch=STEPS)
    if way != "recorded":
        trainer.take_step = trainer.step
    if way == "compiled":
        trainer._forward = torch.compile(trainable)  # type: ignore[assignment]
    batch = np.arange(size), torch.randn(size, *shape)
    labels, weights = np.arange(size) % 20, torch.ones(20, device=where.device)

    def run(count: int) -> float:
        started = time.perf_counter()
        trainer.epoch((0.0, 0.1), 0, iter([batch] * count), labels, weights)
        return time.perf_counter() - started

    first = run(1)
    run(5)
    return min(run(STEPS) for _ in range(3)) / STEPS, first


def _runs(folders: Sequence[Path], budgets: Sequence[str]) -> list[str]:
    rows = []
    with tempfile.TemporaryDirectory() as target:
        for folder in folders:
            for budget in budgets:
                output = Path(target) / f"{folder.name}-{budget}"
                text = _train(folder, output, [f"--budget={budget}", "--profile"], {})
                print(f"\n{folder.name}, --budget {budget}\n{text}", flush=True)
                metrics = json.loads((output / "metrics.json").read_text())
                taken, planned = metrics["seconds"]["total"], metrics["planned_seconds"]
                accuracy, photos = metrics["test"]["accuracy"], metrics["test"]["photos"]
                rows.append([f"{folder.name}, {budget}", f"{100 * accuracy:.1f}", f"{photos}"])
                rows[-1] += [metrics["kept"]["stage"], f"{taken:.0f}", f"{planned:.0f}"]
    return ["Runs:", table(["", "test accuracy, %", "photos", "kept", "seconds", "forecast"], rows)]


def _train(folder: Path, output: Path, choices: Sequence[str], settings: dict[str, str]) -> str:
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "headstart", "train", str(folder), "-o", str(output), "--cache", cache]
        environment = {**os.environ, **settings}
        done = subprocess.run([*command, *choices], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
