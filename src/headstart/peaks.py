"""The greatest speeds of this computer: what it does when it does one thing, and nothing else.

Of a few tries the fastest counts, because other programs only ever slow them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path

import torch

from headstart.choices import Precision
from headstart.photos.drawing import Photo
from headstart.photos.loading import ahead, num_workers
from headstart.stopwatch import fastest
from headstart.training.embedding import Embedder, Pass
from headstart.training.hardware import hardware, num_processes


def hashing_speed() -> float:
    """Measure bytes/s of the hash that photos are known by, on memory, in as many threads as read them."""
    buffers = [bytes(4 << 20)] * (4 * num_workers())
    return sum(map(len, buffers)) / fastest(lambda: list(ahead(buffers, lambda block: blake2b(block).digest())), 0.2)


def together(first: float, second: float, share_cores: bool) -> float:
    """Return the seconds of two things done at once: their sum on the same cores, else the longer."""
    return first + second if share_cores else max(first, second)


def writing_seconds(folder: Path, size: int) -> float:
    """Measure how long it takes to write so many bytes to a file in a folder, down to the disk."""

    def write() -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())

    return fastest(write, 0.2)


def product_speed(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Measure floating-point operations a second of matrix products on a device."""
    size = 1024 if device.type == "cpu" else 4096
    left, right = torch.ones(2, size, size, device=device, dtype=dtype)
    # Taking a number out waits for a GPU to be done.
    return 2 * size**3 / fastest(lambda: float((left @ right)[0, 0]), seconds)


class Peaks:
    """The greatest speeds of what a run did, each measured when it is first asked for.

    Args:
        embedder: the run's.
        photos: all of them; a sample is decoded.
        precision: of training.
    """

    def __init__(self, embedder: Embedder, photos: Sequence[Photo], precision: Precision) -> None:
        self._embedder = embedder
        self._photos = photos
        self._where = hardware(precision)
        self.trains_on_cpu = self._where.device.type == "cpu"
        self.decoding_speed = cache(self._decoding_speed)
        self._engine_speed = cache(embedder.engine_speed)

    @cached_property
    def products(self) -> float:
        """FLOP/s of float32 products on the CPU."""
        return product_speed(torch.device("cpu"), torch.float32)

    @cached_property
    def training(self) -> float:
        """FLOP/s where training runs, in its precision, over all processes."""
        dtype = self._where.autocast_dtype or (torch.bfloat16 if self._where.bfloat16_products else torch.float32)
        usual = self.trains_on_cpu and dtype is torch.float32
        here = self.products if usual else product_speed(self._where.device, dtype)
        return here * num_processes()

    def _decoding_speed(self, views: tuple[int, ...]) -> float:
        return max(self._embedder.decoding_speed(self._photos, views) for _ in range(3))

    def decoding(self, passes: Sequence[Pass]) -> float:
        """Return the least seconds of decoding what was embedded."""
        return sum(done.views / self.decoding_speed(done.photo_views) for done in passes)

    def embedding(self, passes: Sequence[Pass]) -> float:
        """Return the least seconds of embedding it."""
        running = sum(
            done.views / self._engine_speed(done.boundaries, done.photo_views[:1]) for done in passes if done.boundaries
        )
        return together(self.decoding(passes), running, self._embedder.choice.device == "cpu")
