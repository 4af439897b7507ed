"""The contract of an artifact store: four verbs over immutable bytes, and the content addresses on top."""

import hashlib
from collections.abc import Container, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from app.errors import ArtifactDamaged

UNFINISHED = ".unfinished/"
"""Keys under it are writes that a crash cut off: never read, listed so that they can be swept."""

_DIGEST_BYTES = 32
_PROBE_BYTES = 4096


class StoredArtifact(NamedTuple):
    """One entry of a store's listing."""

    key: str
    size_bytes: int
    written_at: datetime


class ArtifactStore(Protocol):
    """Where bytes live under a key. Every method raises ArtifactStoreUnavailable when the store fails."""

    def put(self, artifacts: Mapping[str, bytes], *, replace: bool = False) -> set[str]:
        """Write each artifact under its key, whole and durable or not at all; the keys that were written.

        A key that exists already keeps what it has, but for `replace`.
        """

    def get(self, key: str) -> bytes:
        """The bytes under `key`. Raises KeyError when there are none."""

    def list(self) -> Iterator[StoredArtifact]:
        """Everything that is stored, in no order."""

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens when it is not there."""


class ContentStore:
    """Artifacts under the SHA-256 of their content, so that equal bytes are stored once.

    A file's name is its checksum (`ab/abcdef....suffix`): `sha256sum` on it must give its name.
    """

    def __init__(self, store: ArtifactStore, location: str, suffix: str) -> None:
        self.store = store
        self.location = location
        self._suffix = suffix

    def put(self, artifacts: Mapping[bytes, bytes]) -> set[bytes]:
        """Store the bytes of each digest; the digests that were there already.

        What is there already is compared, and replaced when it is missing again or damaged.
        """
        keys = {self.key(digest): digest for digest in artifacts}
        new = self.store.put({key: artifacts[digest] for key, digest in keys.items()})
        shared = {digest for key, digest in keys.items() if key not in new}
        damaged = [digest for digest in shared if not self._is_whole(digest, artifacts[digest])]
        if damaged:
            self.store.put({self.key(digest): artifacts[digest] for digest in damaged}, replace=True)
        return shared

    def _is_whole(self, digest: bytes, data: bytes) -> bool:
        try:
            return self.store.get(self.key(digest)) == data
        except KeyError:
            return False

    def get(self, digest: bytes) -> bytes:
        """The bytes of this digest, verified. Raises ArtifactDamaged when they are missing or differ."""
        key = self.key(digest)
        advice = "Restore it from a backup, or fit the series again to get a new version."
        try:
            data = self.store.get(key)
        except KeyError:
            raise ArtifactDamaged(f"{key} is missing from {self.location}. {advice}") from None
        if hashlib.sha256(data).digest() != digest:
            raise ArtifactDamaged(f"{key} in {self.location} does not match its checksum. {advice}")
        return data

    def key(self, digest: bytes) -> str:
        """Where the bytes of this digest are."""
        name = digest.hex()
        return f"{name[:2]}/{name}{self._suffix}"

    def is_orphan(self, key: str, named: Container[bytes]) -> bool:
        """Whether `key` was written by this store and is none of the digests that are `named`."""
        if key.startswith(UNFINISHED):
            return True
        try:
            digest = bytes.fromhex(key.rpartition("/")[2].removesuffix(self._suffix))
        except ValueError:
            return False
        return len(digest) == _DIGEST_BYTES and key == self.key(digest) and digest not in named

    def check_writable(self) -> None:
        """Write and remove a probe. Raises ArtifactStoreUnavailable when that fails."""
        probe = "probe/readyz"
        self.store.delete(probe)
        self.store.put({probe: bytes(_PROBE_BYTES)})  # enough to notice a full disk
        self.store.delete(probe)
