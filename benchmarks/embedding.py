"""How fast Headstart embeds a folder of photos, next to plain PyTorch and to what engine and decoder can do at most.

Photos per second, in steady state: the network is converted, compiled and warm before the clock starts, and every
round of Headstart writes to a new cache folder. Contestants:

- Headstart: decoding, the frozen network, and the activation store, with the pooled features and what the last block
  trains from;
- plain PyTorch: the same decoding in a `DataLoader`, the same network with the same weights in evaluation mode under
  `inference_mode`, pooled features only and nothing stored;
- tuned PyTorch: the same in `channels_last` and batches of 8, the fastest of the settings tried, which the usual script
  does not have;
- engine alone: the compiled network of Headstart's engine on random pixels in memory, as many requests in flight;
- decoder alone: decoding and resizing with Headstart's threads, no network;
- the floor: the harmonic sum of the last two. Both use the same cores, so no embedding that decodes can be faster.

OMP_WAIT_POLICY=passive python benchmarks/embedding.py PHOTOS
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from headstart.console import Console
from headstart.errors import PhotoError
from headstart.network.backbones import Backbone, backbone_named, build
from headstart.network.cut import ActivationsAt, boundary_before_last_blocks, last_boundary
from headstart.network.weights import load_weights
from headstart.photos.catalog import read_catalog
from headstart.photos.decode import decode, read_bytes
from headstart.photos.loading import ahead
from headstart.photos.views import Pixels, Preprocessing, evaluation_view
from headstart.training.embedding import Embedder, Photo
from headstart.training.engines import choose_engine, open_engine
from measuring import alternate, note, ratios, report, spread, table

WARM_UP_PHOTOS = 64
TUNED_BATCH_SIZE = 8
HEADSTART, PLAIN, TUNED = "Headstart, photos to stored activations", "plain PyTorch", "tuned PyTorch"
ENGINE, DECODER = "engine alone, pixels in memory", "decoder alone"
BOTH = "floor: engine and decoder on the same cores"

Contestant = Callable[[int], float]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    backbone = backbone_named(options.backbone)
    network = build(backbone, num_classes=2)
    load_weights(network, backbone)
    preprocessing = backbone.preprocessing(options.resize_policy, options.image_size)
    root, photos = _readable_photos(options.photos, preprocessing, options.limit)

    with tempfile.TemporaryDirectory() as folder:
        if options.megapixels:
            root = _enlarged(root, photos, options.megapixels, Path(folder) / "photos")
        contestants = {
            HEADSTART: _headstart(root, photos, network, backbone, preprocessing, Path(folder)),
            PLAIN: _pytorch(root, photos, network, preprocessing, options.workers, options.batch_size),
            TUNED: _pytorch(
                root, photos, network, preprocessing, options.workers, TUNED_BATCH_SIZE, torch.channels_last
            ),
            ENGINE: _engine_alone(network, preprocessing, Path(folder), len(photos)),
            DECODER: _decoder_alone(root, photos, preprocessing),
        }
        speeds = alternate(contestants, options.repeats)

    ours = speeds[HEADSTART]
    # What decoding and network take when both keep the same cores busy all the time and nothing else does.
    peaks = zip(speeds[ENGINE], speeds[DECODER], strict=True)
    speeds[BOTH] = [1 / (1 / engine + 1 / decoder) for engine, decoder in peaks]
    rows = [
        [name, spread(values), "1" if name == HEADSTART else spread(ratios(ours, values), ".2f")]
        for name, values in speeds.items()
    ]
    size = f" of {options.megapixels} megapixels" if options.megapixels else ""
    facts = (
        f"{len(photos):,} photos{size}, {backbone.name} at {preprocessing.image_size} pixels "
        f"({options.resize_policy}), engine {choose_engine()}; "
        f"PyTorch: {torch.get_num_threads()} threads, {options.workers} workers, batches of {options.batch_size}, "
        f"tuned {TUNED_BATCH_SIZE}. "
        f"Median (least-greatest) of {options.repeats} rounds; ratios are taken round by round."
    )
    report("Embedding", [facts, table(["", "photos/s", "Headstart's speed / this"], rows)])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, help="a folder with a folder per class")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--limit", type=int, help="use this many of the photos, evenly taken (all)")
    parser.add_argument("--backbone", default="lite0", help="lite0, lite1 or lite2 (lite0)")
    parser.add_argument("--image-size", type=int, help="pixels (the backbone's own)")
    parser.add_argument("--resize-policy", choices=("squash", "crop", "letterbox"), default="squash", help="(squash)")
    parser.add_argument("--megapixels", type=int, help="enlarge photos to a camera's, with noise (as they are)")
    parser.add_argument("--batch-size", type=int, default=32, help="of plain PyTorch (32)")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes of PyTorch (2)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch (its own choice)")
    return parser.parse_args()


def _readable_photos(folder: Path, preprocessing: Preprocessing, limit: int | None) -> tuple[Path, list[Photo]]:
    """List photos of different bytes that can be decoded; reads every file, so that all are in the page cache."""
    catalog = read_catalog(folder)
    distinct = catalog.photos.drop_duplicates("digest")
    chosen = np.unique(np.linspace(0, len(distinct) - 1, min(limit or len(distinct), len(distinct))).astype(int))
    rows = distinct.iloc[chosen]
    photos = [Photo(path, digest) for path, digest in zip(rows["path"], rows["digest"], strict=True)]
    fine = ahead(photos, lambda photo: _pixels(catalog.root / photo.name, preprocessing) is not None)
    readable = [photo for photo, is_fine in zip(photos, fine, strict=True) if is_fine]
    if len(readable) < len(photos):
        note(f"{len(photos) - len(readable)} photos cannot be read and are left out")
    return catalog.root, readable


def _enlarged(root: Path, photos: Sequence[Photo], megapixels: int, folder: Path) -> Path:
    """Make a camera's JPEGs of photos: 4:3, sensor noise in every pixel, quality 90; returns their folder."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    size = (height * 4 // 3, height)

    def enlarge(number: int) -> None:
        large = Image.open(root / photos[number].name).convert("RGB").resize(size, Image.Resampling.BICUBIC)
        noise = np.random.default_rng(number).normal(0, 4, (*size[::-1], 1)).astype(np.float32)
        noisy = np.clip(np.asarray(large) + noise, 0, 255).astype(np.uint8)
        path = folder / photos[number].name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, "JPEG", quality=90)

    for _ in ahead(range(len(photos)), enlarge, window=2):
        pass
    return folder


def _pixels(path: Path, preprocessing: Preprocessing) -> Pixels | None:
    """Decode and resize one photo the way Headstart does."""
    try:
        return evaluation_view(decode(read_bytes(path), preprocessing.decode_short_side), preprocessing)
    except PhotoError:
        return None


def _photos_per_second(count: int, work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def _headstart(
    root: Path,
    photos: Sequence[Photo],
    network: nn.Module,
    backbone: Backbone,
    preprocessing: Preprocessing,
    folder: Path,
) -> Contestant:
    boundaries = (boundary_before_last_blocks(network, 1), last_boundary(network))
    identity = {"backbone": backbone.name, "weights": "imagenet"}
    # Under other digests, so that the timed photos are still to be computed.
    warm_up = [Photo(photo.name, f"warm-up {photo.digest}") for photo in photos[:WARM_UP_PHOTOS]]
    quiet = Console(quiet=True)

    def run(number: int) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            embedder = Embedder(root, network, identity, preprocessing, "none", 0, choose_engine(), Path(cache))
            embedder.embed(warm_up, range(1), boundaries, quiet, "")
            return _photos_per_second(len(photos), lambda: embedder.embed(photos, range(1), boundaries, quiet, ""))

    return run


class _PhotoDataset(Dataset[Any]):
    """Photos as the usual script serves them: decoded and resized one by one, as uint8 tensors."""

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self._paths = paths
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = _pixels(self._paths[index], self._preprocessing)
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def _pytorch(
    root: Path,
    photos: Sequence[Photo],
    network: nn.Module,
    preprocessing: Preprocessing,
    workers: int,
    batch_size: int,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Contestant:
    pooled = ActivationsAt(network, (last_boundary(network),), preprocessing).to(memory_format=memory_format)
    dataset = _PhotoDataset([root / photo.name for photo in photos], preprocessing)
    order: list[int] = []
    loader = DataLoader(dataset, batch_size, sampler=order, num_workers=workers, persistent_workers=workers > 0)

    @torch.inference_mode()
    def embed() -> torch.Tensor:
        return torch.cat([pooled(batch.float().contiguous(memory_format=memory_format))[0] for batch in loader])

    def run(number: int) -> float:
        # The loader's workers stay; their start and the first pass are not timed.
        order[:] = range(min(WARM_UP_PHOTOS, len(photos)))
        embed()
        order[:] = range(len(photos))
        return _photos_per_second(len(photos), embed)

    return run


def _engine_alone(network: nn.Module, preprocessing: Preprocessing, folder: Path, count: int) -> Contestant:
    boundaries = (boundary_before_last_blocks(network, 1), last_boundary(network))
    size, choice = preprocessing.image_size, choose_engine()
    engine = open_engine(choice, ActivationsAt(network, boundaries, preprocessing), size, folder)
    batch = np.random.default_rng(0).integers(0, 256, (engine.batch_size, size, size, 3), np.uint8)

    def feed(batches: int) -> None:
        if choice.name != "openvino":
            for _ in engine.run((None, batch) for _ in range(batches)):
                pass
            return
        import openvino

        # The engine's own compiled network, with OpenVINO's queue in place of ours and outputs left where they are.
        queue = openvino.AsyncInferQueue(engine._compiled, len(engine._requests))  # type: ignore[attr-defined]
        for _ in range(batches):
            queue.start_async([batch], share_inputs=True)
        queue.wait_all()

    def run(number: int) -> float:
        feed(WARM_UP_PHOTOS // engine.batch_size)
        batches = -(-count // engine.batch_size)
        return _photos_per_second(batches * engine.batch_size, lambda: feed(batches))

    return run


def _decoder_alone(root: Path, photos: Sequence[Photo], preprocessing: Preprocessing) -> Contestant:
    work = partial(_pixels, preprocessing=preprocessing)

    def decode_all() -> None:
        for _ in ahead((root / photo.name for photo in photos), work):
            pass

    return lambda number: _photos_per_second(len(photos), decode_all)


if __name__ == "__main__":
    main()
