"""Whether all that is stored is what the database says: every artifact of every version, and the rows themselves."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from app import training_data
from app.artifacts.base import WHAT_TO_DO, Address, ContentStore
from app.catalog import Catalog
from app.detectors import codec
from app.errors import ArtifactDamaged, SeriesNotFound, VersionDeleted
from app.inventory import Inventory
from app.series import Series
from app.versions import PackPlace, Version

_MOST_VERSIONS = 100
_MOST_POINTS = 2_000_000


class Finding(NamedTuple):
    """One thing that is wrong."""

    series_id: str | None
    version: int | None
    path: str | None
    """Of the artifact, below the folder or URL of its store."""
    fault: str
    advice: str


class Checked(NamedTuple):
    """Some versions, and what is wrong with them."""

    versions: int
    findings: Sequence[Finding]


class Verification:
    """Reads everything once, a batch of versions or a pack at a time."""

    def __init__(self, catalog: Catalog, models: ContentStore, training: ContentStore) -> None:
        self._catalog = catalog
        self._inventory = Inventory(catalog.database)
        self._models = models
        self._training = training

    def count(self) -> int:
        """How many versions there are to check."""
        return self._inventory.count()

    def check_rows(self) -> Iterator[Finding]:
        """Where rows contradict each other. Raises DatabaseUnavailable, SchemaOutdated."""
        for series_id, version, fault, advice in self._inventory.contradictions():
            yield Finding(series_id or None, version, None, fault, advice)

    def check_artifacts(self) -> Iterator[Checked]:
        """Every artifact that a version stands on: there, as it was written, and to be read.

        Raises DatabaseUnavailable, SchemaOutdated, ArtifactStoreUnavailable.
        """
        for pack, members in groupby(self._inventory.live_versions(), lambda v: v.place and v.place.model_pack):
            for batch in _batches(members) if pack is None else [list(members)]:
                findings = self._check_files(batch) if pack is None else self._check_pack(batch)
                yield Checked(len(batch), [finding for finding in findings if self._is_alive(finding)])

    def _check_files(self, batch: Sequence[Version]) -> Iterator[Finding]:
        models = self._models.get_many([version.model_address for version in batch])
        histories = self._training.get_many([version.data_address for version in batch])
        for version, model, history in zip(batch, models, histories, strict=True):
            yield from _judge_model(version, self._models.key(version.model_digest), model)
            path = self._training.key(version.data_digest)
            if isinstance(history, ArtifactDamaged):
                yield _finding(version, path, _fault_of(history))
            else:
                yield from _judge_points(version, path, history)

    def _check_pack(self, members: Sequence[Version]) -> Iterator[Finding]:
        """Its two files as a whole, and the part of each version, which alone may be sound or wrong."""
        place = members[0].place
        assert place is not None
        path = self._models.pack_key(place.model_pack)
        [whole] = self._models.get_many([Address(place.model_pack, place.model_pack)])
        if isinstance(whole, ArtifactDamaged):
            yield Finding(None, None, path, _fault_of(whole), WHAT_TO_DO)
        for batch in _batches(members):
            parts = self._models.get_many([version.model_address for version in batch])
            for version, model in zip(batch, parts, strict=True):
                yield from _judge_model(version, path, model)
        yield from self._check_packed_points(members, place)

    def _check_packed_points(self, members: Sequence[Version], place: PackPlace) -> Iterator[Finding]:
        path = self._training.pack_key(place.data_pack)
        [data] = self._training.get_many([Address(place.data_pack, place.data_pack)])
        if isinstance(data, ArtifactDamaged):
            yield from (_finding(version, path, _fault_of(data)) for version in members)
            return
        try:
            points = training_data.decode(data)
        except ValueError as error:
            yield from (_finding(version, path, f"It is {error}.") for version in members)
            return
        for version in members:
            assert version.place is not None
            rows = slice(version.place.first_row, version.place.first_row + version.points)
            own = Series(points.timestamps_s[rows], points.values[rows])
            if training_data.digest_of(own) != version.data_digest:
                yield _finding(version, path, f"Its {version.points} points from row {rows.start} are not its own.")

    def _is_alive(self, finding: Finding) -> bool:
        """A version that was deleted since it was listed may have been swept."""
        if finding.series_id is None or finding.version is None:
            return True
        try:
            self._catalog.get_version(finding.series_id, finding.version)
        except (VersionDeleted, SeriesNotFound):
            return False
        return True


def _batches(versions: Iterator[Version] | Sequence[Version]) -> Iterator[list[Version]]:
    """As many as fit into memory with their points."""
    batch: list[Version] = []
    points = 0
    for version in versions:
        if batch and (len(batch) == _MOST_VERSIONS or points + version.points > _MOST_POINTS):
            yield batch
            batch, points = [], 0
        batch.append(version)
        points += version.points
    if batch:
        yield batch


def _judge_model(version: Version, path: str, model: bytes | ArtifactDamaged) -> Iterator[Finding]:
    if isinstance(model, ArtifactDamaged):
        yield _finding(version, path, _fault_of(model))
        return
    try:
        name = codec.decode(model).name
    except ValueError as error:
        yield _finding(version, path, f"It is {error}.")
        return
    if name != version.detector:
        yield _finding(version, path, f"It is a model of {name}, and its version one of {version.detector}.")


def _judge_points(version: Version, path: str, data: bytes) -> Iterator[Finding]:
    try:
        points = len(training_data.decode(data))
    except ValueError as error:
        yield _finding(version, path, f"It is {error}.")
        return
    if points != version.points:
        yield _finding(version, path, f"It has {points} points, and its version {version.points}.")


def _finding(version: Version, path: str, fault: str) -> Finding:
    return Finding(version.series_id, version.version, path, fault, WHAT_TO_DO)


def _fault_of(error: ArtifactDamaged) -> str:
    return error.detail.removesuffix(WHAT_TO_DO).rstrip()
