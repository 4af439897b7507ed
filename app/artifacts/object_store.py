"""Artifacts in an object store (S3, Google Cloud Storage, Azure), over obstore."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import from_url
from typing_extensions import override

from app.artifacts.base import ArtifactStore, StoredArtifact
from app.errors import ArtifactStoreUnavailable, ConfigurationError

_AT_ONCE = 16


class ObjectStore(ArtifactStore):
    """One object an artifact; credentials come from the environment as the cloud's own tools read them."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError for a URL that names no object store."""
        self._url = url
        try:
            self._store = from_url(url)
        except (BaseError, ValueError) as error:
            message = f"{url} is not an object store that can be used: {error}. Use a path or s3://, gs://, az://."
            raise ConfigurationError(message) from error

    @override
    def put(self, artifacts: Mapping[str, bytes]) -> set[str]:
        with self._failing_clearly(), ThreadPoolExecutor(_AT_ONCE) as pool:
            are_new = pool.map(self._put_one, artifacts.keys(), artifacts.values())
            return {key for key, is_new in zip(artifacts, are_new, strict=True) if is_new}

    @override
    def get(self, key: str) -> bytes:
        with self._failing_clearly():
            try:
                return bytes(obstore.get(self._store, key).bytes())
            except NotFoundError:
                raise KeyError(key) from None

    @override
    def list(self) -> Iterator[StoredArtifact]:
        with self._failing_clearly():
            for page in obstore.list(self._store):
                for entry in page:
                    yield StoredArtifact(entry["path"], entry["size"], entry["last_modified"])

    @override
    def delete(self, key: str) -> None:
        with self._failing_clearly(), suppress(NotFoundError):
            obstore.delete(self._store, key)

    def _put_one(self, key: str, data: bytes) -> bool:
        try:
            obstore.put(self._store, key, data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except BaseError as error:
            raise ArtifactStoreUnavailable(f"The object store {self._url} cannot be used: {error}.") from error
