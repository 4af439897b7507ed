"""Fleets for the tests: many small series, published as a bulk fit publishes them."""

from collections.abc import Sequence

from app import packs
from app.bootstrap import Services
from app.detectors import codec
from app.detectors.base import Detector, Fitted
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.series_batch import SeriesBatch
from app.versions import Version
from tests.crashing import history

PARAMS = MeanStdParams()


def publish_many(services: Services, names: Sequence[str], seeds: Sequence[int] | None = None) -> list[Version]:
    """A bulk fit of series, the n-th of them to `history(n)` unless `seeds` says otherwise."""
    histories = [history(seed) for seed in (seeds or range(len(names)))]
    fitted = [Fitted(MeanStd.fit(points, PARAMS), None) for points in histories]
    return services.registry.publish_many(
        packs.encode(fitted, SeriesBatch.of(list(zip(names, histories, strict=True))))
    )


def read_model(services: Services, version: Version) -> Detector:
    """The model of a version from the store, whatever is in memory."""
    models, _ = services.stores
    [data] = models.get_many([version.model_address])
    if isinstance(data, Exception):
        raise data
    return codec.decode(data)


def files(services: Services) -> list[list[str]]:
    """The keys of what is in the two stores: models, and training data."""
    return [sorted(entry.key for entry in content.store.list()) for content in services.stores]
