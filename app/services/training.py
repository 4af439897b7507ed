"""Fitting: from a history to a published version."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from app import packs
from app.detectors.base import Detector, DetectorParams, Fitted
from app.errors import TidemarkError, Unavailable
from app.packs import Pack
from app.registry import ModelRegistry
from app.series import Series
from app.series_batch import SeriesBatch
from app.versions import Idempotency, Version


class FitJob(NamedTuple):
    """One of many series to fit."""

    series_id: str
    history: Series
    detector: type[Detector]
    params: DetectorParams


class Computed(NamedTuple):
    """A fit that is computed and not published yet."""

    series_id: str
    fitted: Fitted
    history: Series
    idempotency: Idempotency | None
    created_by: str | None


class Prepared(NamedTuple):
    """Jobs that are computed and not published yet, among what was refused."""

    jobs: Sequence[FitJob | TidemarkError]
    pack: Pack | None
    """None when all were refused."""


class TrainingService:
    """Fits a detector to a history and publishes it as the next version of its series.

    `created_by` is the name of the API key that asked for it, which the version keeps.
    A detector that chooses takes about `fit_budget_s` seconds for that, for each series.
    """

    def __init__(self, registry: ModelRegistry, fit_budget_s: float) -> None:
        self._registry = registry
        self._fit_budget_s = fit_budget_s

    def fit(
        self,
        series_id: str,
        history: Series,
        detector: type[Detector],
        params: DetectorParams,
        idempotency_key: str | None = None,
        *,
        created_by: str | None = None,
    ) -> Version:
        """Fit, publish, and give the new version; with a key, the one that the same request has made before.

        Raises IdempotencyKeyReused, VersionDeleted, DatabaseUnavailable, ArtifactStoreUnavailable.
        """
        key, by = idempotency_key, created_by
        return self.publish_one(self.compute(series_id, history, detector, params, idempotency_key=key, created_by=by))

    def compute(
        self,
        series_id: str,
        history: Series,
        detector: type[Detector],
        params: DetectorParams,
        *,
        idempotency_key: str | None = None,
        created_by: str | None = None,
    ) -> Computed | Version:
        """All the computing of `fit` and none of its waiting for the store; or the version that there was before."""
        idempotency = None
        if idempotency_key is not None:
            idempotency = Idempotency(idempotency_key, _request_digest(history, detector, params))
            if replay := self._registry.find_replay(series_id, idempotency):
                return replay
        fitted = detector.fit_within(history, params, self._fit_budget_s)
        return Computed(series_id, fitted, history, idempotency, created_by)

    def publish_one(self, computed: Computed | Version) -> Version:
        """The rest of `fit`."""
        return computed if isinstance(computed, Version) else self._registry.publish(*computed)

    def begin_fit(
        self,
        series_id: str,
        history: Series,
        detector: type[Detector],
        params: DetectorParams,
        created_by: str | None = None,
    ) -> Future[Version]:
        """As `fit`, without waiting for the store: for histories that are fitted in no time."""
        fitted = detector.fit_within(history, params, self._fit_budget_s)
        return self._registry.begin_publish(series_id, fitted, history, created_by)

    def prepare(self, jobs: Sequence[FitJob | TidemarkError], created_by: str | None = None) -> Prepared:
        """Fit each job: all the computing of a bulk fit and none of its waiting. `publish` must follow."""
        sound = [job for job in jobs if isinstance(job, FitJob)]
        if not sound:
            return Prepared(jobs, None)
        fitted = [job.detector.fit_within(job.history, job.params, self._fit_budget_s) for job in sound]
        histories = SeriesBatch.of([(job.series_id, job.history) for job in sound])
        return Prepared(jobs, packs.encode(fitted, histories, created_by))

    def publish(self, prepared: Prepared) -> list[Version | TidemarkError]:
        """Make each job the next version of its series, in their order; what was refused stays an error.

        When database or store are away, no version is made and each job has the error.
        """
        if prepared.pack is None:
            return [job for job in prepared.jobs if isinstance(job, TidemarkError)]
        try:
            published = iter(self._registry.publish_many(prepared.pack))
        except Unavailable as error:
            return [job if isinstance(job, TidemarkError) else error for job in prepared.jobs]
        return [job if isinstance(job, TidemarkError) else next(published) for job in prepared.jobs]


def _request_digest(history: Series, detector: type[Detector], params: DetectorParams) -> bytes:
    """SHA-256 of what a fit depends on, so that a repeated request is known whatever its layout."""
    digest = hashlib.sha256(json.dumps([detector.name, params.model_dump()], sort_keys=True).encode())
    digest.update(history.timestamps_s.tobytes())
    digest.update(history.values.tobytes())
    return digest.digest()
