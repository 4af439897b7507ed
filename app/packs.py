"""Packs: the artifacts of many versions in two files, one of models and one of training data."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from app import __version__, training_data
from app.detectors import codec
from app.detectors.base import Fitted
from app.series import Series
from app.series_batch import SeriesBatch
from app.versions import PackPlace, Version

LIBRARIES = {"tidemark": __version__, "python": platform.python_version(), "numpy": np.__version__}


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """A batch of new versions, not numbered yet, and the two files that they share."""

    versions: Sequence[Version]
    models: bytes
    """Model files, one after another."""
    data: bytes
    """One Parquet file of all series."""
    model_digest: bytes
    data_digest: bytes


def new_version(
    series_id: str,
    fitted: Fitted,
    history: Series,
    digests: tuple[bytes, bytes],
    *,
    created_by: str | None = None,
    place: PackPlace | None = None,
) -> Version:
    """A version that has no number yet; `digests` are those of its model and of its training data."""
    return Version(
        series_id=series_id,
        version=0,
        detector=fitted.detector.name,
        params=fitted.detector.params.model_dump(),
        points=len(history),
        first_timestamp_s=float(history.timestamps_s[0]),
        last_timestamp_s=float(history.timestamps_s[-1]),
        model_digest=digests[0],
        data_digest=digests[1],
        libraries=LIBRARIES,
        created_at=datetime.now(UTC),
        place=place,
        choice=fitted.choice,
        created_by=created_by,
    )


def encode(fitted: Sequence[Fitted], histories: SeriesBatch, created_by: str | None = None) -> Pack:
    """The pack of detectors and the series that they were fitted to, aligned."""
    files = [codec.encode(each.detector) for each in fitted]
    models, data = b"".join(files), training_data.encode_many(histories)
    model_digest, data_digest = hashlib.sha256(models).digest(), hashlib.sha256(data).digest()
    versions = []
    offset = 0
    rows = histories.offsets.tolist()
    for each, file, row, (series_id, history) in zip(fitted, files, rows, histories, strict=False):
        place = PackPlace(model_digest, offset, len(file), data_digest, row)
        digests = hashlib.sha256(file).digest(), training_data.digest_of(history)
        versions.append(new_version(series_id, each, history, digests, created_by=created_by, place=place))
        offset += len(file)
    return Pack(versions, models, data, model_digest, data_digest)
