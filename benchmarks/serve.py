"""How fast `headstart serve` answers, next to what its engine can do at most, and whether its memory grows.

The server is a process of its own, started by the command; so are the clients, in one more process of raw sockets with
keep-alive, because all share the same cores: what the clients take, the server has not. Each client sends one JPEG of
about the network's size a request, as the body, and the next one when the answer is there. Contestants, in turn:

- 64 clients, 8 clients, one client: requests (photos) a second, and the median and 99th percentile of their latency;
- engine alone: the same network on the same engine, pixels in memory, as many batches in flight;
- decoder alone: decoding and resizing with Headstart's threads, no network;
- the floor: the harmonic sum of the last two. Both use the same cores, so no server that decodes can be faster.

Where other programs keep the cores busy, a server gets more of them than an engine alone, because it has more threads,
and its throughput flatters it. Processor time a photo (of the server's process; of this one) depends on them less.

python benchmarks/serve.py PHOTOS
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.classifier import Classifier
from headstart.evaluation.rejection import Rejection
from headstart.network.backbones import backbone_named, build
from headstart.network.weights import load_weights
from headstart.photos.catalog import read_catalog
from headstart.photos.decode import read_bytes
from headstart.photos.loading import ahead
from headstart.training.engines import choose_engine
from measuring import alternate, note, ratios, report, spread, table

CLIENTS = (1, 8, 64)
NUM_CLASSES = 20
ENGINE, DECODER, FLOOR = (
    "engine alone, pixels in memory",
    "decoder alone",
    "floor: engine and decoder on the same cores",
)


def main() -> None:
    options = _options()
    if options.client:
        _client(*options.client)
        return
    catalog = read_catalog(options.photos)
    photos = [read_bytes(catalog.root / path) for path in catalog.photos["path"][: options.limit]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classifier = untrained_classifier(options.backbone)
        classifier.save(folder / "classifier")
        (folder / "requests").write_text(json.dumps([photo.hex() for photo in photos]), encoding="utf-8")
        with _Server(folder / "classifier") as server:
            note("warming up")
            server.load(64, folder, seconds=2)
            contestants: dict[str, Callable[[int], Any]] = {
                ENGINE: engine_alone(classifier, options.seconds),
                **{_named(count): _clients(server, count, folder, options.seconds) for count in reversed(CLIENTS)},
                DECODER: decoder_alone(classifier, photos),
            }
            results = alternate(contestants, options.repeats)
            memory = server.memory_over(options.requests, folder) if options.requests else None
    report("Serving", _said(results, options, classifier, memory), ("fastapi", "uvicorn", "uvloop", "httptools"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?", help="a folder with a folder per class")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--seconds", type=float, default=5, help="of each contestant in each round (5)")
    parser.add_argument("--requests", type=int, default=20_000, help="for the memory; 0: leave it out (20000)")
    parser.add_argument("--limit", type=int, default=200, help="use this many of the photos (200)")
    parser.add_argument("--backbone", default="lite0", help="lite0, lite1 or lite2 (lite0)")
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)  # how the clients' process is started
    return parser.parse_args()


def untrained_classifier(backbone_name: str) -> Classifier:
    """Make a classifier that does all that a trained one does, rejection included."""
    backbone = backbone_named(backbone_name)
    network = build(backbone, NUM_CLASSES)
    load_weights(network, backbone)
    directions = np.random.default_rng(0).normal(size=(NUM_CLASSES, network.num_features)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rejection = Rejection(directions, 0.5, 1.0, (0.0, 1.0), 0.95, True)
    names = [str(number) for number in range(NUM_CLASSES)]
    return Classifier(network, names, backbone.preprocessing("crop", None), backbone.name, {}, rejection=rejection)


class _Server:
    """`headstart serve` as a process, and the clients' process."""

    def __init__(self, classifier: Path) -> None:
        command = [sys.executable, "-m", "headstart", "serve", str(classifier), "--port", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None  # noqa: S101
        found = (re.search(r"http://[\d.]+:(\d+)", line) for line in self._process.stdout)
        self._port = next(match[1] for match in found if match)

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def load(self, clients: int, folder: Path, seconds: float) -> dict[str, float]:
        """Have this many clients ask for so long.

        Returns:
            requests, seconds, p50 and p99 (in milliseconds), and the server's processor time a request in milliseconds.
        """
        command = [sys.executable, __file__, "--client", self._port, str(clients), str(seconds), str(folder)]
        before = self._processor_seconds()
        seen = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        return {**seen, "processor": 1000 * (self._processor_seconds() - before) / seen["requests"]}

    def memory_over(self, requests: int, folder: Path) -> tuple[int, list[float]]:
        """Return the number of requests made and the resident MiB before, half way and after."""
        made, sizes = 0, [self._resident()]
        for goal in (requests / 2, requests):
            while made < goal:
                made += int(self.load(8, folder, seconds=5)["requests"])
                note(f"memory: {made:,} requests, {self._resident():.0f} MiB")
            sizes.append(self._resident())
        return made, sizes

    def _processor_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _resident(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else float("nan")


def _named(clients: int) -> str:
    return f"{clients} client{'s' if clients > 1 else ''}"


def _clients(server: _Server, count: int, folder: Path, seconds: float) -> Callable[[int], Any]:
    return lambda number: server.load(count, folder, seconds)


def engine_alone(classifier: Classifier, seconds: float) -> Callable[[int], tuple[float, float]]:
    """Return what measures the engine on pixels in memory: photos/s, and milliseconds of processor time a photo."""
    engine, size = classifier.engine(), classifier.preprocessing.image_size
    batch = np.random.default_rng(0).integers(0, 256, (engine.batch_size, size, size, 3), np.uint8)

    def run(number: int) -> tuple[float, float]:
        started, processor = time.perf_counter(), time.process_time()
        going = itertools.takewhile(lambda _: time.perf_counter() - started < seconds, itertools.count())
        done = sum(1 for _ in engine.run((None, batch) for _ in going))
        photos = done * engine.batch_size
        return photos / (time.perf_counter() - started), 1000 * (time.process_time() - processor) / photos

    return run


def decoder_alone(classifier: Classifier, photos: Sequence[bytes]) -> Callable[[int], tuple[float, float]]:
    """Return what measures decoding and resizing alone, five times over, in the same units."""

    def run(number: int) -> tuple[float, float]:
        started, processor = time.perf_counter(), time.process_time()
        count = sum(1 for _ in ahead(list(photos) * 5, classifier.view))
        return count / (time.perf_counter() - started), 1000 * (time.process_time() - processor) / count

    return run


def _said(results: dict[str, list[Any]], options: argparse.Namespace, classifier: Classifier, memory: Any) -> list[str]:
    (peaks, engine_ms), (decoded, decoder_ms) = (zip(*results[name], strict=True) for name in (ENGINE, DECODER))
    floors = [1 / (1 / engine + 1 / decoder) for engine, decoder in zip(peaks, decoded, strict=True)]
    floor_ms = [engine + decoder for engine, decoder in zip(engine_ms, decoder_ms, strict=True)]
    rows = []
    for count in CLIENTS:
        rounds = results[_named(count)]
        speeds = [each["requests"] / each["seconds"] for each in rounds]
        p50, p99 = (spread([each[name] for each in rounds]) for name in ("p50", "p99"))
        processor = [each["processor"] for each in rounds]
        of_time = spread(ratios(engine_ms, processor), ".2f")
        row = [spread(speeds), spread(ratios(speeds, peaks), ".2f"), spread(processor, ".2f"), of_time]
        rows.append([_named(count), *row, p50, p99])
    for name, speeds, processor in (
        (ENGINE, peaks, engine_ms),
        (DECODER, decoded, decoder_ms),
        (FLOOR, floors, floor_ms),
    ):
        of_time = spread(ratios(engine_ms, processor), ".2f")
        rows.append(
            [name, spread(speeds), spread(ratios(speeds, peaks), ".2f"), spread(processor, ".2f"), of_time, "", ""]
        )
    size = classifier.preprocessing.image_size
    facts = (
        f"JPEGs of {options.photos.name}, {options.backbone} at {size} pixels, engine {choose_engine()}; "
        f"{options.seconds:g} s a contestant and round. Median (least-greatest) of {options.repeats} rounds; ratios "
        "are taken round by round."
    )
    header = ["", "photos/s", "this / engine alone", "processor time a photo, ms", "engine's time / this"]
    header += ["p50, ms", "p99, ms"]
    parts = [facts, table(header, rows)]
    if memory:
        made, (first, half, last) = memory
        parts.append(
            f"Memory over {made:,} requests of 8 clients: {first:.0f} MiB resident before, {half:.0f} half way, "
            f"{last:.0f} after."
        )
    return parts


def _client(port: str, clients: str, seconds: str, folder: str) -> None:
    """Be all clients, for so many seconds, and print what they saw."""
    bodies = [bytes.fromhex(text) for text in json.loads((Path(folder) / "requests").read_text(encoding="utf-8"))]
    head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    requests = itertools.cycle([head % len(body) + body for body in bodies])
    latencies: list[float] = []

    class Client(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.answer = b""
            self.ask()

        def ask(self) -> None:
            self.asked = time.perf_counter()
            self.transport.write(next(requests))

        def data_received(self, data: bytes) -> None:
            self.answer += data
            if not self.answer.endswith(b"]}"):  # how our answers end, and end only there
                return
            if not self.answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"unexpected answer: {self.answer[:400]!r}")
            self.answer = b""
            latencies.append(time.perf_counter() - self.asked)
            self.ask()

    async def all_clients() -> float:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        for _ in range(int(clients)):
            await loop.create_connection(Client, "127.0.0.1", int(port))
        await asyncio.sleep(float(seconds))
        return time.perf_counter() - started

    import uvloop

    loop = uvloop.new_event_loop()
    took = loop.run_until_complete(all_clients())
    p50, p99 = 1000 * np.percentile(latencies, (50, 99))
    print(json.dumps({"requests": len(latencies), "seconds": took, "p50": p50, "p99": p99}))


if __name__ == "__main__":
    main()
