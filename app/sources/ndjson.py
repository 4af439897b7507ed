"""NDJSON, a series a line: cut at line ends, and parsed by whoever fits it."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from app.errors import SourceUnreadable
from app.sources.base import JsonLines, reading, size_of

CHUNK_BYTES = 4_000_000


class NdjsonFile:
    """The lines of a file, `CHUNK_BYTES` at a time; one that is longer is a chunk of its own."""

    left_out = ()

    def __init__(self, path: Path) -> None:
        """Raises SourceUnreadable."""
        self._path = path
        self.size = size_of(path)

    def chunks(self) -> Iterator[tuple[JsonLines, int]]:
        """Whole lines; see Source."""
        with reading(self._path), ExitStack() as files:
            raw = files.enter_context(self._path.open("rb"))
            lines = files.enter_context(_unzipped(raw)) if self._path.suffix.lower() == ".gz" else raw
            first_line = 1
            data = _read(lines).removeprefix(codecs.BOM_UTF8)
            if not data:
                raise SourceUnreadable(f"{self._path} is empty: there is nothing to fit")
            while data:
                done = min(raw.tell(), self.size)
                following = _read(lines)
                yield JsonLines(first_line, data), done if following else self.size
                first_line += data.count(b"\n")
                data = following


def _unzipped(raw: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="rb"))


def _read(lines: BinaryIO) -> bytes:
    try:
        data = lines.read(CHUNK_BYTES)
        return data if data.endswith(b"\n") else data + lines.readline()
    except zlib.error as error:
        raise ValueError(f"its compression is damaged: {error}") from error
