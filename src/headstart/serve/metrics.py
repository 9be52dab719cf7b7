"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "headstart_requests", "Requests, by route and status.", ("route", "status"), registry=self.registry
        )
        self.photos = Counter(
            "headstart_photos", "Photos, by model and outcome.", ("model", "outcome"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "headstart_request_seconds",
            "From a request's headers to the end of its answer, by route.",
            ("route",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.stage_seconds = Histogram(
            "headstart_stage_seconds",
            "By stage: receiving (a request's body), decoding and waiting (a photo), engine (a batch).",
            ("stage",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.receiving, self.decoding, self.waiting, self.engine = (
            self.stage_seconds.labels(stage) for stage in ("receiving", "decoding", "waiting", "engine")
        )
        self.batch_size = Histogram(
            "headstart_batch_size", "Photos in a batch.", ("model",), registry=self.registry, buckets=_SIZES
        )
        self._queue_depth = Gauge(
            "headstart_queue_depth", "Photos that wait for the engine.", ("model",), registry=self.registry
        )

    def watch_queue(self, model: str, depth: Callable[[], float]) -> None:
        """Have a model's queue depth read when metrics are asked for."""
        self._queue_depth.labels(model).set_function(depth)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)
