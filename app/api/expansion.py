"""What compressed tables expand to, told from their metadata before any of it is expanded.

A stream of Arrow is a sequence of messages: a marker, the length of the metadata, the metadata (a FlatBuffer), the
body. In the body of a compressed batch, each buffer begins with the length that it expands to. Source: "Arrow Columnar
Format", section "Serialization and Interprocess Communication", and Message.fbs there.
"""

import struct
from collections.abc import Iterator
from struct import unpack_from
from typing import NamedTuple, Protocol

import pyarrow.parquet as pq

from app.errors import BodyTooLarge

_MARKER = b"\xff\xff\xff\xff"
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_ROW_BYTES = 16
"""What time and value take as floats, however few bytes they come in."""


class _Readable(Protocol):
    def read(self, size: int) -> bytes: ...


class Table(NamedTuple):
    """A table of a FlatBuffer: its fields by number."""

    data: bytes
    at: int

    def field(self, number: int) -> int:
        """Where a field is; 0 when it is left out."""
        vtable = self.at - unpack_from("<i", self.data, self.at)[0]
        if 4 + 2 * number >= unpack_from("<H", self.data, vtable)[0]:
            return 0
        offset: int = unpack_from("<H", self.data, vtable + 4 + 2 * number)[0]
        return self.at + offset if offset else 0

    def number(self, number: int, form: str) -> int:
        """A field that is an integer."""
        place = self.field(number)
        return int(unpack_from(form, self.data, place)[0]) if place else 0

    def table(self, number: int) -> "Table | None":
        """A field that is a table."""
        place = self.field(number)
        return Table(self.data, self.follow(place)) if place else None

    def follow(self, place: int) -> int:
        """Where an offset leads that is stored here."""
        return place + int(unpack_from("<I", self.data, place)[0])


def check_arrow(body: bytes, limit_bytes: int) -> None:
    """Raises BodyTooLarge when all batches of a stream together expand to more than `limit_bytes`.

    What is no stream is left to Arrow to refuse.
    """
    source = memoryview(body)
    total = place = 0
    while place + 8 <= len(source):
        is_marked = source[place : place + 4] == _MARKER
        place += 4 if is_marked else 0
        size = unpack_from("<i", source, place)[0]
        place += 4
        if size <= 0:
            return
        metadata = bytes(source[place : place + size])
        place += size
        measured = _measure(metadata, source[place:])
        total += measured.expanded
        _refuse_beyond(total, limit_bytes)
        place += max(0, measured.length)


class CheckedStream:
    """A file that is an Arrow stream; raises BodyTooLarge before a batch that expands to more than `limit_bytes`.

    Also before one of more rows than `max_points`, if their floats alone would take more than that. Arrow reads a
    message by its lengths: the prefix, the metadata, the body.
    """

    closed = False

    def __init__(self, source: _Readable, max_points: int, limit_bytes: int) -> None:
        self._most_rows = max(max_points, limit_bytes // _ROW_BYTES)
        self._pieces = self._read(source, limit_bytes)
        self._rest = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end."""
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _read(self, source: _Readable, limit_bytes: int) -> Iterator[bytes]:
        while prefix := source.read(4):
            yield prefix
            if prefix == _MARKER:
                prefix = source.read(4)
                yield prefix
            size = unpack_from("<i", prefix)[0] if len(prefix) == 4 else 0  # noqa: PLR2004
            if size <= 0:
                continue
            metadata = source.read(size)
            yield metadata
            length, rows, _ = _measure(metadata, b"")
            if rows > self._most_rows:
                raise BodyTooLarge(f"A batch has {rows} rows: send {self._most_rows} at a time, or raise MAX_POINTS.")
            if length > 0:
                body = source.read(length)
                _refuse_beyond(_measure(metadata, body).expanded, limit_bytes)
                yield body


def check_parquet(metadata: pq.FileMetaData, limit_bytes: int) -> None:
    """Raises BodyTooLarge when a Parquet file expands to more than `limit_bytes`.

    By its row groups: the metadata of a single column end the process where their histograms are of a wrong length,
    since pyarrow lets no exception of C++ out of them.
    """
    sizes = (metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    _refuse_beyond(sum(sizes), limit_bytes)


def _refuse_beyond(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        advice = f"send fewer rows at a time, or raise MAX_BODY_MB, which is {limit_bytes // 2**20}"
        raise BodyTooLarge(f"The table has {size} bytes once it is expanded: {advice}.")


class _Measured(NamedTuple):
    """The body of a message."""

    length: int
    rows: int
    expanded: int


def _measure(metadata: bytes, body: memoryview | bytes) -> _Measured:
    """Of metadata that make no sense, zeros: Arrow refuses them."""
    try:
        message = Table(metadata, unpack_from("<I", metadata)[0])
        length = message.number(3, "<q")
        batch = message.table(2)
        if batch is not None and message.number(1, "<B") == _DICTIONARY_BATCH:
            batch = batch.table(1)
        elif message.number(1, "<B") != _RECORD_BATCH:
            batch = None
        if batch is None:
            return _Measured(length, 0, 0)
        return _Measured(length, batch.number(0, "<q"), _expanded(batch, body))
    except struct.error:
        return _Measured(0, 0, 0)


def _expanded(batch: Table, body: memoryview | bytes) -> int:
    place = batch.field(2)
    if not place:
        return 0
    start = batch.follow(place)
    count = unpack_from("<I", batch.data, start)[0]
    is_compressed = batch.field(3) != 0
    total = 0
    for index in range(count):
        offset, size = unpack_from("<qq", batch.data, start + 4 + 16 * index)
        if is_compressed and 0 <= offset <= len(body) - 8 and size >= 8:  # noqa: PLR2004
            size = max(size, unpack_from("<q", body, offset)[0])
        total += max(size, 0)  # a negative one would make room for others
    return total
