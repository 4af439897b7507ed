"""Fitting: from a history to a published version."""

import hashlib
import json
from concurrent.futures import Future

from app.detectors.base import Detector, DetectorParams
from app.registry import ModelRegistry
from app.series import Series
from app.versions import Idempotency, Version


class TrainingService:
    """Fits a detector to a history and publishes it as the next version of its series."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def fit(
        self,
        series_id: str,
        history: Series,
        detector: type[Detector],
        params: DetectorParams,
        idempotency_key: str | None = None,
    ) -> Version:
        """Fit, publish, and give the new version; with a key, the one that the same request has made before.

        Raises IdempotencyKeyReused, VersionDeleted, DatabaseUnavailable, ArtifactStoreUnavailable.
        """
        idempotency = None
        if idempotency_key is not None:
            idempotency = Idempotency(idempotency_key, _request_digest(history, detector, params))
            if replay := self._registry.find_replay(series_id, idempotency):
                return replay
        return self._registry.publish(series_id, detector.fit(history, params), history, idempotency)

    def begin_fit(
        self, series_id: str, history: Series, detector: type[Detector], params: DetectorParams
    ) -> Future[Version]:
        """As `fit`, without waiting for the store: for histories that are fitted in no time."""
        return self._registry.begin_publish(series_id, detector.fit(history, params), history)


def _request_digest(history: Series, detector: type[Detector], params: DetectorParams) -> bytes:
    """SHA-256 of what a fit depends on, so that a repeated request is known whatever its layout."""
    digest = hashlib.sha256(json.dumps([detector.name, params.model_dump()], sort_keys=True).encode())
    digest.update(history.timestamps_s.tobytes())
    digest.update(history.values.tobytes())
    return digest.digest()
