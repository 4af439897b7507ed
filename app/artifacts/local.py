"""Artifacts in a local folder, durable once written: they survive a power cut, not only a crash."""

import ctypes
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import cast

from typing_extensions import override

from app.artifacts.base import UNFINISHED, ArtifactStore, Part, StoredArtifact
from app.errors import ArtifactStoreUnavailable

_FEW = 4
"""Files that are synced one by one."""


class LocalStore(ArtifactStore):
    """One file an artifact. A file appears under its name only when all of it is on the disk."""

    def __init__(self, root: Path) -> None:
        """Make `root` where it is missing. Raises ArtifactStoreUnavailable when that fails."""
        self._root = root.resolve()
        with self._failing_clearly():
            self._root.mkdir(parents=True, exist_ok=True)

    @override
    def put(self, artifacts: Mapping[str, bytes], *, replace: bool = False) -> set[str]:
        with self._failing_clearly(), ExitStack() as cleaning:
            files = {
                key: cleaning.enter_context(self._unfinished(data))
                for key, data in artifacts.items()
                if replace or not (self._root / key).exists()
            }
            self._sync([file.fileno() for file in files.values()])
            new = {key for key, file in files.items() if self._give_name(file.name, key, replace=replace)}
            folders = {(self._root / key).parent for key in new}
            self._sync([cleaning.enter_context(_opened(folder)) for folder in folders])
        return new

    @override
    def get(self, parts: Sequence[Part]) -> Sequence[bytes | None]:
        with self._failing_clearly():
            return [self._read(part) for part in parts]

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

    def _read(self, part: Part) -> bytes | None:
        try:
            descriptor = os.open(f"{self._root}/{part.key}", os.O_RDONLY)
        except FileNotFoundError:
            return None
        with FileIO(descriptor) as file:
            return file.readall() if part.length is None else os.pread(descriptor, part.length, part.offset)

    @contextmanager
    def _unfinished(self, data: bytes) -> Iterator[FileIO]:
        """A file with `data` that nobody reads; it is gone at the end, but for the name it has got by then."""
        path = self._root / UNFINISHED / secrets.token_hex(16)
        path.parent.mkdir(parents=True, exist_ok=True)  # someone may have emptied the folder
        try:
            with path.open("xb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                yield file
        finally:
            path.unlink(missing_ok=True)

    def _give_name(self, unfinished: str, key: str, *, replace: bool) -> bool:
        path = self._root / key
        self._make_folder(path.parent)
        try:
            (os.replace if replace else os.link)(unfinished, path)
        except FileExistsError:
            return False
        return True

    def _sync(self, descriptors: Sequence[int]) -> None:
        """Return when these files or folders are on the disk.

        Each fsync waits for the disk by itself, so that many are slower than one flush of the file system.
        """
        if len(descriptors) > _FEW and _syncfs is not None:
            if _syncfs(descriptors[0]) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        else:
            for descriptor in descriptors:
                os.fsync(descriptor)

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir()
        except FileExistsError:
            return
        with _opened(self._root) as descriptor:
            os.fsync(descriptor)

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"The folder {self._root} cannot be used: {error.strerror or error}."
            raise ArtifactStoreUnavailable(message) from error


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _find_syncfs() -> Callable[[int], int] | None:
    """syncfs(2), which Linux has and Python does not."""
    try:
        return cast(Callable[[int], int], ctypes.CDLL(None, use_errno=True).syncfs)
    except (OSError, AttributeError, TypeError):
        return None


_syncfs = _find_syncfs()
