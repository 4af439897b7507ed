"""The registry of models: publish, get, list, alias, delete. Hides rows, blobs and cache."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

from app import __version__, training_data
from app.artifacts.base import ContentStore
from app.catalog import Catalog, Entry, IdempotencyKeyTaken
from app.detectors import codec
from app.detectors.base import Detector
from app.errors import ArtifactDamaged, Fault, IdempotencyKeyReused
from app.group_commit import GroupCommit
from app.model_cache import ModelCache
from app.preconditions import Precondition
from app.series import Series
from app.versions import Alias, Idempotency, LoadedModel, Selector, Version

LIBRARIES = {"tidemark": __version__, "python": platform.python_version(), "numpy": np.__version__}

_MOST_IN_ONE_COMMIT = 100
_KEEP_CHANGES = timedelta(days=1)


class Swept(NamedTuple):
    """What a sweep removed, or would remove."""

    artifacts: int
    size_bytes: int


class _Draft(NamedTuple):
    """A version whose artifacts are stored and whose row is not."""

    entry: Entry
    shared: Sequence[tuple[ContentStore, bytes, bytes]]
    """Artifacts that were there already, as store, digest and bytes: a sweep may remove them until the commit."""


class ModelRegistry:
    """Immutable versions of the models of each series, and the aliases that point at them.

    Reads that need no artifact are the catalog's own methods.
    """

    def __init__(self, catalog: Catalog, models: ContentStore, training: ContentStore, cache: ModelCache) -> None:
        self.catalog = catalog
        self._models = models
        self._training = training
        self._cache = cache
        self._commits = GroupCommit(self._commit, most=_MOST_IN_ONE_COMMIT)

    def publish(
        self, series_id: str, detector: Detector, history: Series, idempotency: Idempotency | None = None
    ) -> Version:
        """Store a fitted detector and its training data as the next version of the series.

        Artifacts first, then the row: a crash leaves the whole version, or nothing that a reader sees.
        Raises DatabaseUnavailable, ArtifactStoreUnavailable, IdempotencyKeyReused.
        """
        model, data = codec.encode(detector), training_data.encode(history)
        model_digest, model_is_new = self._models.put(model)
        data_digest, data_is_new = self._training.put(data)
        version = Version(
            series_id=series_id,
            version=0,
            detector=detector.name,
            params=detector.params.model_dump(),
            points=len(history),
            first_timestamp_s=float(history.timestamps_s[0]),
            last_timestamp_s=float(history.timestamps_s[-1]),
            model_digest=model_digest,
            data_digest=data_digest,
            libraries=LIBRARIES,
            created_at=datetime.now(UTC),
        )
        shared = []
        if not model_is_new:
            shared.append((self._models, model_digest, model))
        if not data_is_new:
            shared.append((self._training, data_digest, data))
        draft = _Draft(Entry(version, idempotency), shared)
        try:
            published = self._commits.submit(draft)
        except IdempotencyKeyTaken:
            published = self._publish_alone(draft)
        self._cache.forget(series_id)
        return published

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

    def load(self, series_id: str, selector: Selector) -> LoadedModel:
        """The model that is meant, from memory or from the store.

        Raises SeriesNotFound, VersionNotFound, AliasNotFound, VersionDeleted, ArtifactDamaged.
        """
        if loaded := self._cache.find(series_id, selector):
            return loaded
        loading = self._cache.begin(series_id)
        pointers = model = None
        try:
            version = self.catalog.get_version(series_id, selector)
            pointers = self.catalog.get_pointers(series_id)
            model = LoadedModel(version.version, self.read_model(version))
        finally:
            self._cache.finish(loading, pointers, model)
        return model

    def read_model(self, version: Version) -> Detector:
        """The fitted detector of a version, from the store. Raises ArtifactDamaged."""
        data = self._models.get(version.model_digest)
        try:
            return codec.decode(data)
        except ValueError as error:
            message = f"{self._models.key(version.model_digest)} in {self._models.location} is {error}."
            raise ArtifactDamaged(message) from error

    def read_training_data(self, version: Version) -> Series:
        """What a version was fitted to, from the store. Raises ArtifactDamaged."""
        data = self._training.get(version.data_digest)
        try:
            return training_data.decode(data)
        except ValueError as error:
            message = f"{self._training.key(version.data_digest)} in {self._training.location} is {error}."
            raise ArtifactDamaged(message) from error

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

    def sweep(self, grace: timedelta, *, dry_run: bool = False) -> Swept:
        """Remove the artifacts older than `grace` that no version names: of deleted versions and cut-off fits.

        A fit writes its artifacts before its row, so `grace` must exceed the time that a fit takes. A fit that
        shares an older artifact is safe at any time: it looks again inside its transaction, and while artifacts
        are removed here no such transaction runs.
        """
        started_at = datetime.now(UTC)
        with self.catalog.database.write() as connection:
            named = self.catalog.named_digests(connection)
        orphans = [
            (store, artifact)
            for store in (self._models, self._training)
            for artifact in store.store.list()
            if artifact.written_at < started_at - grace and store.is_orphan(artifact.key, named)
        ]
        if orphans and not dry_run:
            with self.catalog.database.write() as connection:
                self.catalog.database.pause_publishing(connection)
                named = self.catalog.named_digests(connection)
                orphans = [(store, artifact) for store, artifact in orphans if store.is_orphan(artifact.key, named)]
                for store, artifact in orphans:
                    store.store.delete(artifact.key)
            self.catalog.prune_changes(started_at - _KEEP_CHANGES)
        return Swept(len(orphans), sum(artifact.size_bytes for _, artifact in orphans))

    def _commit(self, drafts: Sequence[_Draft]) -> Sequence[Version]:
        def restore_swept() -> None:
            for draft in drafts:
                for store, digest, data in draft.shared:
                    store.restore(digest, data)

        return self.catalog.append([draft.entry for draft in drafts], restore_swept)

    def _publish_alone(self, draft: _Draft) -> Version:
        """After a batch in which some key was taken: this draft by itself, or the version that has its key."""
        try:
            return self._commit([draft])[0]
        except IdempotencyKeyTaken:
            assert draft.entry.idempotency is not None
            taken = self.find_replay(draft.entry.version.series_id, draft.entry.idempotency)
            assert taken is not None
            return taken
