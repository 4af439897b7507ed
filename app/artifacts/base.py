"""The contract of an artifact store: four verbs over immutable bytes, and the content addresses on top."""

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from app.errors import ArtifactDamaged

UNFINISHED = ".unfinished/"
"""Keys under it are writes that a crash cut off: never read, listed so that they can be swept."""

WHAT_TO_DO = "Restore it from a backup, or fit the series again to get a new version."
"""About a damaged artifact."""

_DIGEST_BYTES = 32
_PROBE_BYTES = 4096


class Part(NamedTuple):
    """Some of the bytes under a key: all of them when `length` is None."""

    key: str
    offset: int = 0
    length: int | None = None


class Address(NamedTuple):
    """Where an artifact is: under its own digest, or within the pack of this digest."""

    digest: bytes
    pack: bytes | None = None
    offset: int = 0
    length: int | None = None


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

    def get(self, parts: Sequence[Part]) -> Sequence[bytes | None]:
        """The bytes of each part, None where nothing is stored; fewer than asked for when a key has fewer."""

    def list(self) -> Iterator[StoredArtifact]:
        """Everything that is stored, in no order."""

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens when it is not there."""


class ContentStore:
    """Artifacts under the SHA-256 of their content, so that equal bytes are stored once.

    A file's name is its checksum (`ab/abcdef....suffix`): `sha256sum` on it must give its name. That holds for a
    pack too, which is many artifacts in one file.
    """

    def __init__(self, store: ArtifactStore, location: str, suffix: str, pack_suffix: str) -> None:
        self.store = store
        self.location = location
        self._suffix = suffix
        self._pack_suffix = pack_suffix

    def put(self, artifacts: Mapping[bytes, bytes]) -> set[bytes]:
        """Store the bytes of each digest; the digests that were there already.

        What is there already is compared, and replaced when it is missing again or damaged.
        """
        return self._put({self.key(digest): digest for digest in artifacts}, artifacts)

    def put_pack(self, digest: bytes, data: bytes) -> bool:
        """Store a pack, as `put` does; whether it was there already."""
        return bool(self._put({self.pack_key(digest): digest}, {digest: data}))

    def _put(self, keys: Mapping[str, bytes], artifacts: Mapping[bytes, bytes]) -> set[bytes]:
        new = self.store.put({key: artifacts[digest] for key, digest in keys.items()})
        shared = {key: artifacts[digest] for key, digest in keys.items() if key not in new}
        stored = self.store.get([Part(key) for key in shared])
        damaged = {key: data for (key, data), found in zip(shared.items(), stored, strict=True) if found != data}
        if damaged:
            self.store.put(damaged, replace=True)
        return {keys[key] for key in shared}

    def get(self, digest: bytes) -> bytes:
        """The bytes of this digest, verified. Raises ArtifactDamaged when they are missing or differ."""
        return self._one(Address(digest))

    def get_pack(self, digest: bytes) -> bytes:
        """The bytes of a whole pack, verified. Raises ArtifactDamaged when they are missing or differ."""
        return self._one(Address(digest, digest))

    def get_many(self, addresses: Sequence[Address]) -> list[bytes | ArtifactDamaged]:
        """The bytes at each address, verified; for each that is missing or differs the error."""
        parts = [Part(self._key_at(address), address.offset, address.length) for address in addresses]
        found = self.store.get(parts)
        return [self._verified(address, data) for address, data in zip(addresses, found, strict=True)]

    def name_of(self, address: Address) -> str:
        """How a message calls what is at this address."""
        key = f"{self._key_at(address)} in {self.location}"
        return key if address.length is None else f"The part at byte {address.offset} of {key}"

    def key(self, digest: bytes) -> str:
        """Where the bytes of this digest are."""
        return _key(digest, self._suffix)

    def pack_key(self, digest: bytes) -> str:
        """Where the pack of this digest is."""
        return _key(digest, self._pack_suffix)

    def is_orphan(self, key: str, named: Container[bytes]) -> bool:
        """Whether `key` was written by this store and is none of the digests that are `named`."""
        if key.startswith(UNFINISHED):
            return True
        try:
            digest = bytes.fromhex(key.rpartition("/")[2].partition(".")[0])
        except ValueError:
            return False
        is_ours = len(digest) == _DIGEST_BYTES and key in {self.key(digest), self.pack_key(digest)}
        return is_ours and digest not in named

    def _one(self, address: Address) -> bytes:
        found = self.get_many([address])[0]
        if isinstance(found, ArtifactDamaged):
            raise found
        return found

    def _key_at(self, address: Address) -> str:
        return self.key(address.digest) if address.pack is None else self.pack_key(address.pack)

    def _verified(self, address: Address, data: bytes | None) -> bytes | ArtifactDamaged:
        if data is not None and hashlib.sha256(data).digest() == address.digest:
            return data
        fault = "is missing" if data is None else "does not match its checksum"
        return ArtifactDamaged(f"{self.name_of(address)} {fault}. {WHAT_TO_DO}")

    def check_writable(self) -> None:
        """Write and remove a probe. Raises ArtifactStoreUnavailable when that fails."""
        probe = "probe/readyz"
        self.store.delete(probe)
        self.store.put({probe: bytes(_PROBE_BYTES)})  # enough to notice a full disk
        self.store.delete(probe)


def _key(digest: bytes, suffix: str) -> str:
    name = digest.hex()
    return f"{name[:2]}/{name}{suffix}"
