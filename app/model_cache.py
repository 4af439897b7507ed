"""Models in memory, ready to predict: bounded, least recently used, and told when something changes."""

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from types import MappingProxyType
from typing import NamedTuple

from app.versions import LATEST, LoadedModel, Selector

_ENTRY_BYTES = 360
_MODEL_BYTES = 380
_ALIAS_BYTES = 150
_MOST_VERSIONS = 16
"""Of one series: whoever fits it again and again leaves the older ones behind."""


_NO_ALIASES: Mapping[str, int] = MappingProxyType({})


class _Entry:
    """What is known of one series: its versions in memory and, unless it changed, which is meant by what.

    One version is held by itself, several in a dictionary: a million series with one each need none.
    """

    __slots__ = ("_held", "aliases", "latest", "size_bytes")

    def __init__(self) -> None:
        self.latest: int | None = None
        self.aliases = _NO_ALIASES
        self._held: LoadedModel | dict[int, LoadedModel] | None = None
        self.size_bytes = _ENTRY_BYTES

    def __len__(self) -> int:
        return len(self._held) if isinstance(self._held, dict) else int(self._held is not None)

    def get(self, version: int) -> LoadedModel | None:
        held = self._held
        if isinstance(held, dict):
            return held.get(version)
        return held if held is not None and held.version == version else None

    def point(self, latest: int | None, aliases: Mapping[str, int]) -> None:
        self.size_bytes += _ALIAS_BYTES * (len(aliases) - len(self.aliases))
        self.latest, self.aliases = latest, aliases or _NO_ALIASES

    def add(self, model: LoadedModel) -> None:
        if self.get(model.version) is not None:
            return
        self.size_bytes += _size_of(model)
        if isinstance(self._held, dict):
            self._held[model.version] = model
            if len(self._held) > _MOST_VERSIONS:
                self._drop(next(iter(self._held)))
        elif self._held is None:
            self._held = model
        else:
            self._held = {self._held.version: self._held, model.version: model}

    def _drop(self, version: int) -> None:
        assert isinstance(self._held, dict)
        self.size_bytes -= _size_of(self._held.pop(version))

    def number(self, selector: Selector) -> int | None:
        if isinstance(selector, str):
            return self.aliases.get(selector)
        return self.latest if selector == LATEST else selector


def _size_of(model: LoadedModel) -> int:
    return _MODEL_BYTES + model.detector.size_bytes


class Loading:
    """One load under way; what it reads may be stale when the series changes before it ends."""

    __slots__ = ("is_model_stale", "is_stale", "series_id")

    def __init__(self, series_id: str) -> None:
        self.series_id = series_id
        self.is_stale = False
        self.is_model_stale = False


class CacheStatistics(NamedTuple):
    """What a cache has done and holds."""

    hits: int
    misses: int
    """Loads, each counted once however many waited for it."""
    models: int
    size_bytes: int


class ModelCache:
    """The models of at most `capacity_bytes`. A version never changes; what a selector means does."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._size_bytes = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._loading: dict[str, list[Loading]] = {}
        self._lock = Lock()
        self._hits = self._misses = self._models = 0

    def find(self, series_id: str, selector: Selector) -> LoadedModel | None:
        """The model in memory that the selector means; None when it has to be loaded."""
        with self._lock:
            entry = self._entries.get(series_id)
            if entry is None:
                return None
            number = entry.number(selector)
            model = None if number is None else entry.get(number)
            if model is not None:
                self._entries.move_to_end(series_id)
                self._hits += 1
            return model

    def peek(self, series_id: str, version: int) -> LoadedModel | None:
        """This version if it is in memory, for a load and not for a prediction: it counts as no use."""
        with self._lock:
            entry = self._entries.get(series_id)
            return None if entry is None else entry.get(version)

    def statistics(self) -> CacheStatistics:
        """As they are now."""
        with self._lock:
            return CacheStatistics(self._hits, self._misses, self._models, self._size_bytes)

    def begin(self, series_id: str) -> Loading:
        """Announce a load, before anything is read for it; `finish` must follow."""
        loading = Loading(series_id)
        with self._lock:
            self._misses += 1
            self._loading.setdefault(series_id, []).append(loading)
        return loading

    def finish(
        self,
        loading: Loading,
        pointers: tuple[int, Mapping[str, int]] | None = None,
        model: LoadedModel | None = None,
    ) -> None:
        """End a load and keep what it read, but for what a change in the meantime may have made untrue."""
        with self._lock:
            self._end(loading)
            pointers = None if loading.is_stale else pointers
            model = None if loading.is_model_stale else model
            if pointers is None and model is None:
                return
            entry = self._entries.get(loading.series_id)
            if entry is None:
                entry = self._entries[loading.series_id] = _Entry()
            else:
                self._discount(entry)
                self._entries.move_to_end(loading.series_id)
            if pointers is not None:
                entry.point(*pointers)
            if model is not None:
                entry.add(model)
            self._count(entry)
            self._evict()

    def forget(self, series_id: str, *, models: bool = False) -> None:
        """The series changed: read again what its selectors mean, and with `models` whether versions exist."""
        with self._lock:
            for loading in self._loading.get(series_id, ()):
                loading.is_stale = True
                loading.is_model_stale |= models
            entry = self._entries.get(series_id)
            if entry is None:
                return
            self._discount(entry)
            if models:
                del self._entries[series_id]
            else:
                entry.point(None, {})
                self._count(entry)

    def forget_all(self) -> None:
        """Anything may have changed."""
        with self._lock:
            for loadings in self._loading.values():
                for loading in loadings:
                    loading.is_stale = loading.is_model_stale = True
            self._entries.clear()
            self._size_bytes = self._models = 0

    def _end(self, loading: Loading) -> None:
        loadings = self._loading[loading.series_id]
        loadings.remove(loading)
        if not loadings:
            del self._loading[loading.series_id]

    def _evict(self) -> None:
        while self._size_bytes > self._capacity_bytes and self._entries:
            self._discount(self._entries.popitem(last=False)[1])

    def _count(self, entry: _Entry) -> None:
        self._size_bytes += entry.size_bytes
        self._models += len(entry)

    def _discount(self, entry: _Entry) -> None:
        self._size_bytes -= entry.size_bytes
        self._models -= len(entry)
