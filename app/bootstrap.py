"""The only place that constructs collaborators."""

from dataclasses import dataclass, field
from threading import Event

from app.api_keys import Limits
from app.artifacts import open_store
from app.artifacts.base import ContentStore
from app.capacity import Capacity
from app.catalog import Catalog
from app.config import Settings, metrics_folder
from app.db import Database
from app.follower import ChangeFollower
from app.key_catalog import KeyCatalog
from app.keyring import Keyring
from app.model_cache import ModelCache
from app.rate_limits import RateLimiter
from app.registry import ModelRegistry
from app.services.inspection import InspectionService
from app.services.prediction import PredictionService
from app.services.reporting import ReportingService
from app.services.training import TrainingService
from app.telemetry import LatencyHistory, LocalLatencyHistory, Metrics, RedisLatencyHistory
from app.warm_up import begin_warm_up

_MB = 2**20


@dataclass(frozen=True)
class Services:
    """Everything that the edges call, built once a process."""

    settings: Settings
    database: Database
    stores: tuple[ContentStore, ContentStore]
    registry: ModelRegistry
    training: TrainingService
    prediction: PredictionService
    inspection: InspectionService
    reporting: ReportingService
    latencies: LatencyHistory
    metrics: Metrics
    follower: ChangeFollower
    keys: KeyCatalog
    keyring: Keyring
    limiter: RateLimiter
    capacity: Capacity
    shutting_down: Event = field(default_factory=Event)
    """Set when this process is to end; then it is not ready any more."""

    def start(self) -> None:
        """Begin the background work of a serving process."""
        self.latencies.start()
        self.metrics.start()
        self.follower.start()
        self.keyring.start()
        self.limiter.start()
        if self.settings.warm_up == "on":
            begin_warm_up()

    def close(self) -> None:
        """End the background work and close connections."""
        self.latencies.stop()  # first: what it holds would be lost, should the time to end be too short
        self.metrics.stop()
        self.limiter.stop()
        self.keyring.stop()
        self.follower.stop()
        self.database.close()


def build(settings: Settings) -> Services:
    """The services for these settings; connects to nothing yet.

    Raises ConfigurationError, ArtifactStoreUnavailable, MissingDependency.
    """
    database = Database(settings.sqlalchemy_url, settings.database_timeout_s)
    catalog = Catalog(database)
    cache = ModelCache(settings.model_cache_mb * _MB)
    models = _content_store(settings.model_location, ".safetensors", ".pack")
    training = _content_store(settings.training_location, ".parquet", ".parquet")
    registry = ModelRegistry(catalog, models, training, cache)
    keys = KeyCatalog(database)
    return Services(
        settings=settings,
        database=database,
        stores=(models, training),
        registry=registry,
        training=TrainingService(registry, settings.fit_budget_s),
        prediction=PredictionService(registry),
        inspection=InspectionService(registry),
        reporting=ReportingService(registry),
        latencies=_latencies(settings),
        metrics=Metrics(cache.statistics, metrics_folder()),
        follower=ChangeFollower(catalog, cache),
        keys=keys,
        keyring=Keyring(keys, settings),
        limiter=RateLimiter(Limits(settings.requests_per_minute, settings.points_per_minute), settings.redis_url),
        capacity=Capacity(settings),
    )


def _content_store(location: str, suffix: str, pack_suffix: str) -> ContentStore:
    return ContentStore(open_store(location), location, suffix, pack_suffix)


def _latencies(settings: Settings) -> LatencyHistory:
    if settings.redis_url is None:
        return LocalLatencyHistory(settings.latency_history_limit)
    return RedisLatencyHistory(settings.redis_url, settings.latency_history_limit)
