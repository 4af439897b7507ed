"""Loads models that are not in memory: each once, however many ask for it, and all that wait together."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock

from app.artifacts.base import ContentStore
from app.batching import Batching
from app.detectors import codec
from app.errors import ArtifactDamaged
from app.model_cache import Loading, ModelCache
from app.model_lookup import FoundModel, ModelLookup, Pointers
from app.versions import LoadedModel, Selector

_MOST_AT_ONCE = 500
_THREADS = 2
"""So that a large model does not hold up the small ones."""


@dataclass(slots=True, eq=False)
class _Load:
    """One model on its way into memory."""

    series_id: str
    selector: Selector
    loading: Loading
    future: Future[LoadedModel] = field(init=False)


class ModelLoader:
    """From the database and the artifact store into the cache."""

    def __init__(self, lookup: ModelLookup, models: ContentStore, cache: ModelCache) -> None:
        self._lookup = lookup
        self._models = models
        self._cache = cache
        self._batches = Batching[_Load, LoadedModel](self._work, most=_MOST_AT_ONCE, name="load", threads=_THREADS)
        self._under_way: dict[tuple[str, Selector], _Load] = {}
        self._lock = Lock()

    def load(self, series_id: str, selector: Selector) -> Future[LoadedModel]:
        """The model that is meant, by the load of it that is under way unless the series changed since that began.

        The future raises SeriesNotFound, VersionNotFound, AliasNotFound, VersionDeleted, ArtifactDamaged, Unavailable.
        """
        with self._lock:
            load = self._under_way.get((series_id, selector))
            if load is None or load.loading.is_stale:
                load = _Load(series_id, selector, self._cache.begin(series_id))
                load.future = self._batches.submit(load)
                self._under_way[series_id, selector] = load
            return load.future

    def _work(self, loads: Sequence[_Load]) -> Sequence[LoadedModel | Exception]:
        kept: dict[_Load, tuple[Pointers | None, LoadedModel]] = {}
        try:
            found = self._lookup.find([(load.series_id, load.selector) for load in loads])
            ended = self._read(loads, found)
            for load, which, model in zip(loads, found, ended, strict=True):
                if isinstance(which, FoundModel) and isinstance(model, LoadedModel):
                    kept[load] = which.pointers, model
        finally:
            for load in loads:
                self._finish(load, *kept.get(load, ()))
        return ended

    def _read(self, loads: Sequence[_Load], found: Sequence[FoundModel | Exception]) -> list[LoadedModel | Exception]:
        """The models, those that are in memory under another selector without reading them."""
        ended: list[LoadedModel | Exception | None] = [
            which if isinstance(which, Exception) else self._cache.peek(load.series_id, which.number)
            for load, which in zip(loads, found, strict=True)
        ]
        missing = [
            (place, which)
            for place, which in enumerate(found)
            if ended[place] is None and isinstance(which, FoundModel)
        ]
        stored = self._models.get_many([which.address for _, which in missing]) if missing else []
        for (place, which), data in zip(missing, stored, strict=True):
            ended[place] = data if isinstance(data, Exception) else self._decode(which, data)
        return ended  # type: ignore[return-value]  # no place is empty any more

    def _decode(self, which: FoundModel, data: bytes) -> LoadedModel | ArtifactDamaged:
        try:
            return LoadedModel(which.number, codec.decode(data))
        except ValueError as error:
            return ArtifactDamaged(f"{self._models.name_of(which.address)} is {error}.")

    def _finish(self, load: _Load, pointers: Pointers | None = None, model: LoadedModel | None = None) -> None:
        """It is over: one step, as whoever joined it once the cache tells it of no more changes would get old news."""
        with self._lock:
            self._cache.finish(load.loading, pointers, model)
            if self._under_way.get((load.series_id, load.selector)) is load:
                del self._under_way[load.series_id, load.selector]
