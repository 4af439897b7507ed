"""Artifacts in an object store (S3, Google Cloud Storage, Azure), over obstore."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, NotFoundError
from obstore.store import from_url
from typing_extensions import override

from app.artifacts.base import ArtifactStore, Part, StoredArtifact
from app.errors import ArtifactStoreUnavailable, ConfigurationError

if TYPE_CHECKING:
    from obstore.store import RetryConfig

_AT_ONCE = 16
_NOT_FOUND = (NotFoundError, FileNotFoundError)
_RETRIES: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}


class ObjectStore(ArtifactStore):
    """One object an artifact; credentials come from the environment as the cloud's own tools read them."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError for a URL that names no object store."""
        self._url = url
        try:
            self._store = from_url(url, retry_config=_RETRIES)
        except (BaseError, ValueError) as error:
            reason = str(error).splitlines()[0]
            message = f"{url} is not an object store that can be used: {reason}. Use a path or s3://, gs://, az://."
            raise ConfigurationError(message) from error

    @override
    def put(self, artifacts: Mapping[str, bytes], *, replace: bool = False) -> set[str]:
        with self._failing_clearly(), ThreadPoolExecutor(_AT_ONCE) as pool:
            mode: Literal["create", "overwrite"] = "overwrite" if replace else "create"
            written = pool.map(lambda key: self._put_one(key, artifacts[key], mode), artifacts)
            return {key for key, is_written in zip(artifacts, written, strict=True) if is_written}

    @override
    def get(self, parts: Sequence[Part]) -> Sequence[bytes | None]:
        if len(parts) == 1:
            return [self._get_one(parts[0])]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._get_one, parts))

    @override
    def list(self) -> Iterator[StoredArtifact]:
        with self._failing_clearly():
            for page in obstore.list(self._store):
                for entry in page:
                    yield StoredArtifact(entry["path"], entry["size"], entry["last_modified"])

    @override
    def delete(self, key: str) -> None:
        with self._failing_clearly(), suppress(*_NOT_FOUND):
            obstore.delete(self._store, key)

    def _get_one(self, part: Part) -> bytes | None:
        with self._failing_clearly():
            try:
                if part.length is None:
                    return bytes(obstore.get(self._store, part.key).bytes())
                return bytes(obstore.get_range(self._store, part.key, start=part.offset, length=part.length))
            except _NOT_FOUND:
                return None
            except GenericError:
                if obstore.head(self._store, part.key)["size"] <= part.offset:
                    return b""  # a range that begins beyond the end is an error of its own
                raise

    def _put_one(self, key: str, data: bytes, mode: Literal["create", "overwrite"]) -> bool:
        try:
            obstore.put(self._store, key, data, mode=mode)
        except AlreadyExistsError:
            return False
        return True

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError) as error:  # the latter for a bucket that does not exist
            reason = str(error).splitlines()[0]
            raise ArtifactStoreUnavailable(f"The object store {self._url} cannot be used: {reason}.") from error
