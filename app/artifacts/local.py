"""Artifacts in a local folder, durable once written: they survive a power cut, not only a crash."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from typing_extensions import override

from app.artifacts.base import UNFINISHED, ArtifactStore, StoredArtifact
from app.errors import ArtifactStoreUnavailable


class LocalStore(ArtifactStore):
    """One file an artifact. A file appears under its name only when all of it is on the disk."""

    def __init__(self, root: Path) -> None:
        """Make `root` where it is missing. Raises ArtifactStoreUnavailable when that fails."""
        self._root = root.resolve()
        self._folders: set[Path] = set()
        with self._failing_clearly():
            (self._root / UNFINISHED).mkdir(parents=True, exist_ok=True)

    @override
    def put(self, key: str, data: bytes) -> bool:
        path = self._root / key
        unfinished = self._root / UNFINISHED / secrets.token_hex(16)
        with self._failing_clearly():
            if path.exists():
                return False
            self._make_folder(path.parent)
            try:
                _write_durably(unfinished, data)
                os.link(unfinished, path)
            except FileExistsError:
                return False
            finally:
                unfinished.unlink(missing_ok=True)
            _sync_folder(path.parent)
        return True

    @override
    def get(self, key: str) -> bytes:
        with self._failing_clearly():
            try:
                return (self._root / key).read_bytes()
            except FileNotFoundError:
                raise KeyError(key) from None

    @override
    def list(self) -> Iterator[StoredArtifact]:
        with self._failing_clearly():
            for folder in self._root.iterdir():
                for path in folder.iterdir() if folder.is_dir() else ():
                    with suppress(FileNotFoundError):  # deleted since it was listed
                        stat = path.stat()
                        written_at = datetime.fromtimestamp(stat.st_mtime, UTC)
                        yield StoredArtifact(f"{folder.name}/{path.name}", stat.st_size, written_at)

    @override
    def delete(self, key: str) -> None:
        with self._failing_clearly():
            (self._root / key).unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        if folder in self._folders:
            return
        folder.mkdir(exist_ok=True)
        _sync_folder(self._root)
        self._folders.add(folder)

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"The folder {self._root} cannot be used: {error.strerror or error}."
            raise ArtifactStoreUnavailable(message) from error


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
