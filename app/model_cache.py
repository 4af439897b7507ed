"""Models in memory, ready to predict: bounded, least recently used, and told when something changes."""

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

from app.versions import LATEST, LoadedModel, Selector

_ENTRY_BYTES = 560
_MODEL_BYTES = 540
_ALIAS_BYTES = 150


class _Entry:
    """What is known of one series: its versions in memory and, unless it changed, which is meant by what."""

    __slots__ = ("aliases", "latest", "models", "size_bytes")

    def __init__(self) -> None:
        self.latest: int | None = None
        self.aliases: Mapping[str, int] = {}
        self.models: dict[int, LoadedModel] = {}
        self.size_bytes = _ENTRY_BYTES

    def point(self, latest: int | None, aliases: Mapping[str, int]) -> None:
        self.size_bytes += _ALIAS_BYTES * (len(aliases) - len(self.aliases))
        self.latest, self.aliases = latest, aliases

    def add(self, model: LoadedModel) -> None:
        if model.version not in self.models:
            self.models[model.version] = model
            self.size_bytes += _MODEL_BYTES + sum(array.nbytes for array in model.detector.state.values())

    def number(self, selector: Selector) -> int | None:
        if isinstance(selector, str):
            return self.aliases.get(selector)
        return self.latest if selector == LATEST else selector


class Loading:
    """One load under way; what it reads may be stale when the series changes before it ends."""

    __slots__ = ("is_model_stale", "is_stale", "series_id")

    def __init__(self, series_id: str) -> None:
        self.series_id = series_id
        self.is_stale = False
        self.is_model_stale = False


class ModelCache:
    """The models of at most `capacity_bytes`. A version never changes; what a selector means does."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._size_bytes = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._loading: set[Loading] = set()
        self._lock = Lock()

    def find(self, series_id: str, selector: Selector) -> LoadedModel | None:
        """The model in memory that the selector means; None when it has to be loaded."""
        with self._lock:
            entry = self._entries.get(series_id)
            if entry is None:
                return None
            self._entries.move_to_end(series_id)
            number = entry.number(selector)
            return None if number is None else entry.models.get(number)

    def begin(self, series_id: str) -> Loading:
        """Announce a load, before anything is read for it; `finish` must follow."""
        loading = Loading(series_id)
        with self._lock:
            self._loading.add(loading)
        return loading

    def finish(
        self,
        loading: Loading,
        pointers: tuple[int, Mapping[str, int]] | None = None,
        model: LoadedModel | None = None,
    ) -> None:
        """End a load and keep what it read, but for what a change in the meantime may have made untrue."""
        with self._lock:
            self._loading.discard(loading)
            pointers = None if loading.is_stale else pointers
            model = None if loading.is_model_stale else model
            if pointers is None and model is None:
                return
            entry = self._entries.get(loading.series_id)
            if entry is None:
                entry = self._entries[loading.series_id] = _Entry()
            else:
                self._size_bytes -= entry.size_bytes
            if pointers is not None:
                entry.point(*pointers)
            if model is not None:
                entry.add(model)
            self._size_bytes += entry.size_bytes
            self._evict()

    def forget(self, series_id: str, *, models: bool = False) -> None:
        """The series changed: read again what its selectors mean, and with `models` whether versions exist."""
        with self._lock:
            for loading in self._loading:
                if loading.series_id == series_id:
                    loading.is_stale = True
                    loading.is_model_stale |= models
            entry = self._entries.get(series_id)
            if entry is None:
                return
            if models:
                self._size_bytes -= self._entries.pop(series_id).size_bytes
            else:
                self._size_bytes -= entry.size_bytes
                entry.point(None, {})
                self._size_bytes += entry.size_bytes

    def forget_all(self) -> None:
        """Anything may have changed."""
        with self._lock:
            for loading in self._loading:
                loading.is_stale = loading.is_model_stale = True
            self._entries.clear()
            self._size_bytes = 0

    def _evict(self) -> None:
        while self._size_bytes > self._capacity_bytes and self._entries:
            _, entry = self._entries.popitem(last=False)
            self._size_bytes -= entry.size_bytes
