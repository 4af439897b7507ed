"""How long requests take: the last ones of each kind for /healthcheck, and Prometheus metrics.

Recording never fails a request and never waits: latencies go into a bounded buffer, and a thread of its own
carries them to Redis in batches.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple, Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import multiprocess as shared
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from typing_extensions import override

from app import __version__
from app.background import BackgroundLoop
from app.errors import ConfigurationError, LatencyStoreUnavailable

Kind = Literal["inference", "training"]

FLUSH_INTERVAL_S = 0.1
SHARE_INTERVAL_S = 1.0
REDIS_TIMEOUT_S = 1.0
KEY_PREFIX = "tidemark:latency_ms:"


METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST
_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class LatencySummary(NamedTuple):
    """Over the last requests of one kind; zeros before the first."""

    avg: float
    p95: float


def summarize(latencies_ms: Sequence[float]) -> LatencySummary:
    """Mean and 95th percentile by nearest rank: the value at place ceil(0.95 n) of the n in order."""
    if not latencies_ms:
        return LatencySummary(0.0, 0.0)
    ordered = sorted(latencies_ms)
    rank = math.ceil(0.95 * len(ordered))
    return LatencySummary(sum(ordered) / len(ordered), ordered[rank - 1])


class LatencyHistory(Protocol):
    """The latencies of the last requests of each kind."""

    def record(self, kind: Kind, latency_ms: float) -> None:
        """Remember one; returns at once and raises nothing."""

    def last(self, kind: Kind) -> list[float]:
        """The last ones, in ms. Raises LatencyStoreUnavailable."""

    def start(self) -> None:
        """Begin whatever background work there is."""

    def stop(self) -> None:
        """End it; what is still buffered is carried off."""


class LocalLatencyHistory(LatencyHistory):
    """In this process only: for a service without Redis."""

    def __init__(self, limit: int) -> None:
        self._last: dict[Kind, deque[float]] = {"inference": deque(maxlen=limit), "training": deque(maxlen=limit)}

    @override
    def record(self, kind: Kind, latency_ms: float) -> None:
        self._last[kind].append(latency_ms)

    @override
    def last(self, kind: Kind) -> list[float]:
        return list(self._last[kind])

    @override
    def start(self) -> None:
        pass

    @override
    def stop(self) -> None:
        pass


class RedisLatencyHistory(LatencyHistory):
    """In Redis lists, shared by all replicas: newest first, cut to `limit`."""

    def __init__(self, url: str, limit: int) -> None:
        """Raises ConfigurationError when `url` is not a Redis URL; connects only when used."""
        try:
            self._redis = Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=REDIS_TIMEOUT_S,
                socket_connect_timeout=REDIS_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),  # the next flush tries again
            )
        except ValueError as error:
            raise ConfigurationError(f"REDIS_URL cannot be used: {error}") from None
        self._limit = limit
        self._buffers: dict[Kind, deque[float]] = {"inference": deque(maxlen=limit), "training": deque(maxlen=limit)}
        self._flushing = Lock()
        self._flusher = BackgroundLoop(
            self._flush,
            interval_s=FLUSH_INTERVAL_S,
            failed="request latencies cannot be written to Redis",
            recovered="request latencies are written to Redis again",
        )

    @override
    def record(self, kind: Kind, latency_ms: float) -> None:
        self._buffers[kind].append(latency_ms)

    @override
    def last(self, kind: Kind) -> list[float]:
        try:
            self._flush()
            return [float(latency_ms) for latency_ms in self._redis.lrange(KEY_PREFIX + kind, 0, self._limit - 1)]
        except RedisError as error:
            advice = "Predictions and fits go on; check REDIS_URL and the Redis server."
            raise LatencyStoreUnavailable(f"Redis cannot be read ({error}). {advice}") from error

    @override
    def start(self) -> None:
        self._flusher.start()

    @override
    def stop(self) -> None:
        self._flusher.stop()
        self._redis.close()

    def _flush(self) -> None:
        """Carry the buffers to Redis. Raises RedisError; then they are as they were."""
        with self._flushing:
            for kind, buffer in self._buffers.items():
                batch = [buffer.popleft() for _ in range(len(buffer))]
                if not batch:
                    continue
                try:
                    with self._redis.pipeline() as pipeline:
                        pipeline.lpush(KEY_PREFIX + kind, *batch)
                        pipeline.ltrim(KEY_PREFIX + kind, 0, self._limit - 1)
                        pipeline.execute()
                except RedisError:
                    room = self._limit - len(buffer)
                    buffer.extendleft(reversed(batch[-room:] if room else []))
                    raise


class CacheFigures(Protocol):
    """What a cache of models has done and holds."""

    @property
    def hits(self) -> int: ...  # noqa: D102
    @property
    def misses(self) -> int: ...  # noqa: D102
    @property
    def models(self) -> int: ...  # noqa: D102
    @property
    def size_bytes(self) -> int: ...  # noqa: D102


class _CacheCollector(Collector):
    """Asks the cache when Prometheus asks, so that counting costs a prediction nothing."""

    def __init__(self, read: Callable[[], CacheFigures]) -> None:
        self._read = read

    @override
    def collect(self) -> Iterable[Metric]:
        now = self._read()
        name = "tidemark_model_cache"
        yield CounterMetricFamily(f"{name}_hits", "Predictions whose model was in memory.", now.hits)
        yield CounterMetricFamily(f"{name}_misses", "Loads of models that were not in memory.", now.misses)
        yield GaugeMetricFamily(f"{name}_models", "Models in memory.", now.models)
        yield GaugeMetricFamily(f"{name}_bytes", "Memory that they take.", now.size_bytes)


class _SharedFigures:
    """What the cache and the process say of themselves, written to where the other workers can read it."""

    def __init__(self, registry: CollectorRegistry, sources: Sequence[Collector]) -> None:
        self._sources = sources
        self._registry = registry
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, tuple[Counter, float]] = {}
        Gauge("tidemark_workers", "Processes that serve.", registry=registry, multiprocess_mode="livesum").set(1)

    def write(self) -> None:
        for source in self._sources:
            for family in source.collect():
                if family.type == "counter":
                    self._count(family.name, family.documentation, family.samples[0].value)
                elif family.name in _SUMMED:
                    self._show(family.name, family.documentation, family.samples[0].value)

    def _count(self, name: str, documentation: str, now: float) -> None:
        counter, before = self._counters.get(name) or (Counter(name, documentation, registry=self._registry), 0.0)
        counter.inc(now - before)
        self._counters[name] = counter, now

    def _show(self, name: str, documentation: str, now: float) -> None:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, documentation, registry=self._registry, multiprocess_mode="livesum")
        self._gauges[name].set(now)


_SUMMED = frozenset(
    {
        "tidemark_model_cache_models",
        "tidemark_model_cache_bytes",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
    }
)


def forget_process(folder: Path, pid: int) -> None:
    """Leave a process that has ended out of the gauges of those that count together; what it counted stays."""
    shared.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


class Metrics:
    """What Prometheus reads: of this process, or of all workers together. No label takes a value from a client."""

    def __init__(self, cache: Callable[[], CacheFigures], folder: Path | None = None) -> None:
        """`folder` is where several workers count together."""
        self._registry = CollectorRegistry()
        counting = self._registry if folder is None else CollectorRegistry()
        PlatformCollector(registry=self._registry)
        Info("tidemark", "The release that runs.", registry=self._registry).info({"version": __version__})
        own: tuple[Collector, ...] = (ProcessCollector(registry=None), _CacheCollector(cache))
        self._figures: _SharedFigures | None = None
        if folder is None:
            GCCollector(registry=self._registry)
            for collector in own:
                self._registry.register(collector)
        else:
            shared.MultiProcessCollector(self._registry, str(folder))  # type: ignore[no-untyped-call]
            self._figures = _SharedFigures(counting, own)
        self._writer = BackgroundLoop(
            self._share,
            interval_s=SHARE_INTERVAL_S,
            failed="metrics cannot be shared among the workers",
            recovered="metrics are shared among the workers again",
        )
        self._requests = Counter(
            "tidemark_requests", "Requests answered.", ("method", "route", "status"), registry=counting
        )
        self._duration_s = Histogram(
            "tidemark_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ("method", "route"),
            buckets=_LATENCY_BUCKETS_S,
            registry=counting,
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def start(self) -> None:
        """Begin to tell the other workers, if there are any."""
        if self._figures is not None:
            self._writer.start()

    def stop(self) -> None:
        """End it."""
        self._writer.stop()

    def _share(self) -> None:
        if self._figures is not None:
            self._figures.write()

    def observe(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one request. `route` is the template of the path, never the path."""
        children = self._children.get((method, route, status))
        if children is None:
            children = self._requests.labels(method, route, status), self._duration_s.labels(method, route)
            self._children[method, route, status] = children
        requests, durations = children
        requests.inc()
        durations.observe(duration_s)

    def render(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self._registry)
