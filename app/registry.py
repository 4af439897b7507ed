"""The registry of models: publish, get, list, alias, delete. Hides rows, blobs and cache."""

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from app import training_data
from app.artifacts.base import ContentStore, StoredArtifact
from app.batching import Batching
from app.catalog import Catalog, Entry, IdempotencyKeyTaken
from app.detectors import codec
from app.detectors.base import Fitted
from app.errors import ArtifactDamaged, ConfigurationError, Fault, IdempotencyKeyReused, TidemarkError, Unavailable
from app.model_cache import ModelCache
from app.model_loader import ModelLoader
from app.model_lookup import ModelLookup
from app.packs import Pack, new_version
from app.preconditions import Precondition
from app.series import Series
from app.versions import Alias, Idempotency, LoadedModel, PackPlace, Selector, Version

_MOST_IN_ONE_COMMIT = 100
_KEEP_CHANGES = timedelta(days=1)
_SHORTEST_GRACE = timedelta(minutes=1)
_SAFE_FROM_SWEEPS_S = 30.0
"""Well below the shortest grace."""
_SWEPT_AT_ONCE = 100
_SWEEP_PAUSE_S = 0.15
"""Between two batches fits get their turn; SQLite looks for it every 0.1 s."""


class Swept(NamedTuple):
    """What a sweep removed, or would remove."""

    artifacts: int
    size_bytes: int


@dataclass(slots=True)
class _Draft:
    """A version on its way in."""

    entry: Entry
    model: bytes
    data: bytes
    stored_at: float | None = None
    """Monotonic seconds."""
    is_shared: bool = False
    """Whether an artifact of it was there already."""

    def may_be_swept(self) -> bool:
        """Whether an artifact may be older than a sweep's grace, while no row names it yet."""
        return self.is_shared or self.stored_at is None or time.monotonic() - self.stored_at > _SAFE_FROM_SWEEPS_S


class ModelRegistry:
    """Immutable versions of the models of each series, and the aliases that point at them.

    Reads that need no artifact are the catalog's own methods.
    """

    def __init__(self, catalog: Catalog, models: ContentStore, training: ContentStore, cache: ModelCache) -> None:
        self.catalog = catalog
        self._models = models
        self._training = training
        self._cache = cache
        self._commits = Batching[_Draft, Version](self._commit, most=_MOST_IN_ONE_COMMIT, name="commit")
        self._loader = ModelLoader(ModelLookup(catalog), models, cache)

    def publish(
        self,
        series_id: str,
        fitted: Fitted,
        history: Series,
        idempotency: Idempotency | None = None,
        created_by: str | None = None,
    ) -> Version:
        """Store a fitted detector and its training data as the next version of the series.

        Artifacts first, then the row: a crash leaves the whole version, or nothing that a reader sees.
        Raises DatabaseUnavailable, ArtifactStoreUnavailable, IdempotencyKeyReused.
        """
        draft = _draft(series_id, fitted, history, idempotency, created_by)
        self._store([draft])  # here and not in the commit, where a large one would hold up the others
        return self._commits.submit(draft).result()

    def begin_publish(
        self, series_id: str, fitted: Fitted, history: Series, created_by: str | None = None
    ) -> Future[Version]:
        """As `publish`, without waiting: for small models, whose artifacts are stored together with others'."""
        return self._commits.submit(_draft(series_id, fitted, history, None, created_by))

    def publish_many(self, pack: Pack) -> list[Version]:
        """Store each version of a pack as the next one of its series, in their order; all or none.

        Raises DatabaseUnavailable, ArtifactStoreUnavailable.
        """
        shared = self._store_pack(pack)
        stored_at = time.monotonic()

        def restore_swept() -> None:
            if shared or time.monotonic() - stored_at > _SAFE_FROM_SWEEPS_S:
                self._store_pack(pack)

        published = self.catalog.append([Entry(version, None) for version in pack.versions], restore_swept)
        for version in published:
            self._cache.forget(version.series_id)
        return published

    def _store_pack(self, pack: Pack) -> bool:
        """Make sure that its files are stored; whether one of them was there already."""
        shared = self._models.put_pack(pack.model_digest, pack.models)
        return self._training.put_pack(pack.data_digest, pack.data) or shared

    def find_replay(self, series_id: str, idempotency: Idempotency) -> Version | None:
        """The version that this very request has made before, if it has.

        Raises IdempotencyKeyReused when the key came with something else, VersionDeleted.
        """
        found = self.catalog.find_by_key(series_id, idempotency.key)
        if found is None:
            return None
        version, request_digest = found
        if request_digest != idempotency.request_digest:
            advice = f"made version {version.version} from another body: send each new fit with a new key"
            raise IdempotencyKeyReused([Fault("/Idempotency-Key", advice, "header")])
        return version

    def find_loaded(self, series_id: str, selector: Selector) -> LoadedModel | None:
        """The model that is meant, if it is in memory: no I/O."""
        return self._cache.find(series_id, selector)

    def begin_load(self, series_id: str, selector: Selector) -> Future[LoadedModel]:
        """The model that is meant, from the store; for what `find_loaded` does not find.

        The future raises SeriesNotFound, VersionNotFound, AliasNotFound, VersionDeleted, ArtifactDamaged, Unavailable.
        """
        return self._loader.load(series_id, selector)

    def load(self, series_id: str, selector: Selector) -> LoadedModel:
        """The model that is meant, from memory or from the store. Raises what `begin_load` does."""
        return self.find_loaded(series_id, selector) or self.begin_load(series_id, selector).result()

    def load_many(self, wanted: Sequence[tuple[str, Selector]]) -> list[LoadedModel | TidemarkError]:
        """For each series and selector the model that is meant, or what `load` would raise. They load together."""
        found: dict[tuple[str, Selector], LoadedModel | Future[LoadedModel]] = {}
        for pair in wanted:
            if pair not in found:
                found[pair] = self.find_loaded(*pair) or self.begin_load(*pair)
        ended = {pair: model if isinstance(model, LoadedModel) else _ended(model) for pair, model in found.items()}
        return [ended[pair] for pair in wanted]

    def read_training_data(self, version: Version) -> Series:
        """What a version was fitted to, from the store. Raises ArtifactDamaged."""
        try:
            if version.place is None:
                return training_data.decode(self._training.get(version.data_digest))
            return self._read_packed(version, version.place)
        except ValueError as error:
            raise ArtifactDamaged(f"{self._training.name_of(version.data_address)} is {error}.") from error

    def _read_packed(self, version: Version, place: PackPlace) -> Series:
        pack = self._training.get_pack(place.data_pack)
        history = training_data.decode_rows(pack, place.first_row, version.points)
        if training_data.digest_of(history) != version.data_digest:
            raise ValueError(f"without the points of version {version.version} of {version.series_id}")
        return history

    def delete_version(self, series_id: str, number: int, precondition: Precondition) -> None:
        """See `Catalog.delete_version`."""
        self.catalog.delete_version(series_id, number, precondition)
        self._cache.forget(series_id, models=True)

    def delete_series(self, series_id: str) -> None:
        """See `Catalog.delete_series`."""
        self.catalog.delete_series(series_id)
        self._cache.forget(series_id, models=True)

    def set_alias(self, series_id: str, name: str, selector: Selector, precondition: Precondition) -> Alias:
        """See `Catalog.set_alias`."""
        alias = self.catalog.set_alias(series_id, name, selector, precondition)
        self._cache.forget(series_id)
        return alias

    def delete_alias(self, series_id: str, name: str, precondition: Precondition) -> None:
        """See `Catalog.delete_alias`."""
        self.catalog.delete_alias(series_id, name, precondition)
        self._cache.forget(series_id)

    def sweep(self, grace: timedelta, *, dry_run: bool = False, force: bool = False) -> Swept:
        """Remove the artifacts older than `grace` that no version names: of deleted versions and cut-off fits.

        A fit writes its artifacts before its row. One that shares an older artifact, or takes long, looks again
        inside its transaction; and while artifacts are removed here no such transaction runs.
        Raises ConfigurationError when `grace` is under a minute; and, without `force`, when there are artifacts and
        the database names none: then it is hardly the one that they belong to.
        """
        if grace < _SHORTEST_GRACE and not dry_run:
            raise ConfigurationError(f"A sweep must spare what is younger than {_SHORTEST_GRACE.seconds} s.")
        started_at = datetime.now(UTC)
        position = self.catalog.last_change()
        named = self.catalog.named_digests()
        orphans = [
            (store, artifact)
            for store in (self._models, self._training)
            for artifact in store.store.list()
            if artifact.written_at < started_at - grace and store.is_orphan(artifact.key, named)
        ]
        if orphans and not named and not force:
            advice = "Is DATABASE_URL that of these folders? If so, and all is to go, sweep with --force."
            raise ConfigurationError(f"The database names no artifact, and {len(orphans)} are stored. {advice}")
        if not dry_run:
            for start in range(0, len(orphans), _SWEPT_AT_ONCE):
                self._remove(orphans[start : start + _SWEPT_AT_ONCE], position)
                time.sleep(_SWEEP_PAUSE_S)
            self.catalog.prune_changes(started_at - _KEEP_CHANGES)
        return Swept(len(orphans), sum(artifact.size_bytes for _, artifact in orphans))

    def _remove(self, orphans: Sequence[tuple[ContentStore, StoredArtifact]], position: int) -> None:
        """Remove those that are still orphans, counting the versions made since `position` of the feed."""
        with self.catalog.no_publishing(position) as named:
            for store, artifact in orphans:
                if store.is_orphan(artifact.key, named):
                    store.store.delete(artifact.key)

    def _store(self, drafts: Sequence[_Draft]) -> None:
        """Make sure that the artifacts of each draft are stored."""
        shared = self._models.put({draft.entry.version.model_digest: draft.model for draft in drafts})
        shared |= self._training.put({draft.entry.version.data_digest: draft.data for draft in drafts})
        for draft in drafts:
            draft.stored_at = time.monotonic()
            draft.is_shared = not shared.isdisjoint((draft.entry.version.model_digest, draft.entry.version.data_digest))

    def _commit(self, drafts: Sequence[_Draft]) -> Sequence[Version | Exception]:
        if unstored := [draft for draft in drafts if draft.stored_at is None]:
            self._store(unstored)
        try:
            return self._append(drafts)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001  the fault of one must not be that of the others
            return [self._append_alone(draft) for draft in drafts]

    def _append(self, drafts: Sequence[_Draft]) -> Sequence[Version]:
        def restore_swept() -> None:
            if at_risk := [draft for draft in drafts if draft.may_be_swept()]:
                self._store(at_risk)

        published = self.catalog.append([draft.entry for draft in drafts], restore_swept)
        for version in published:
            self._cache.forget(version.series_id)
        return published

    def _append_alone(self, draft: _Draft) -> Version | Exception:
        """After a batch that failed: this draft by itself, or the version that has its key, or what is wrong."""
        try:
            try:
                return self._append([draft])[0]
            except IdempotencyKeyTaken as error:
                assert draft.entry.idempotency is not None
                return self.find_replay(draft.entry.version.series_id, draft.entry.idempotency) or error
        except Exception as error:  # noqa: BLE001  the caller hears of it, whatever it is
            return error


def _ended(load: Future[LoadedModel]) -> LoadedModel | TidemarkError:
    try:
        return load.result()
    except TidemarkError as error:
        return error


def _draft(
    series_id: str, fitted: Fitted, history: Series, idempotency: Idempotency | None, created_by: str | None
) -> _Draft:
    model, data = codec.encode(fitted.detector), training_data.encode(history)
    digests = hashlib.sha256(model).digest(), hashlib.sha256(data).digest()
    version = new_version(series_id, fitted, history, digests, created_by=created_by)
    return _Draft(Entry(version, idempotency), model, data)
