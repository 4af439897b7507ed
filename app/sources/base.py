"""The contract of a source: a file of series, read as chunks to fit from."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from app.errors import SourceUnreadable
from app.series_batch import SeriesBatch

SERIES_PER_CHUNK = 4_000
POINTS_PER_CHUNK = 1_000_000

_LISTED = 20

_USUAL_NAMES = {
    "series": ("series_id", "series", "unique_id", "item_id", "id", "name", "metric"),
    "time": ("timestamp", "timestamps", "time", "ts", "ds", "date", "datetime"),
    "value": ("value", "values", "y"),
}


class Columns(NamedTuple):
    """Names of columns; None where a file has none, or where the user leaves it to us to find it."""

    series: str | None = None
    time: str | None = None
    value: str | None = None

    def found_in(self, table: "Table") -> "Columns":
        """The columns of this table: as they were named, else by the usual names, in upper or lower case.

        Raises SourceUnreadable when a column that was named does not exist, or a name is not unique.
        """
        _check_names(self, table)
        return Columns(*(given or _usual(role, table.names, self) for role, given in self._asdict().items()))


class JsonLines(NamedTuple):
    """Whole lines of NDJSON, not parsed."""

    first_line: int
    """1-based number of its first line in the file."""
    data: bytes


Chunk = SeriesBatch | JsonLines
"""What a worker fits at a time: at most SERIES_PER_CHUNK series and POINTS_PER_CHUNK points, or one longer series."""


class Source(Protocol):
    """A file of series."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    @property
    def left_out(self) -> Sequence[str]:
        """Columns that hold something else than numbers, so that they are no series; known after the last chunk."""

    def chunks(self) -> Iterator[tuple[Chunk, int]]:
        """Chunks that can be pickled, each with the bytes of the file that are done after it.

        These never decrease and end with `size`; where a file is read before its first chunk is made, they follow the
        points. What the file says of a series is in one chunk. Raises SourceUnreadable, possibly after some chunks.
        """


class Table(Protocol):
    """A file of rows with named columns: what sources in long and in wide form read from."""

    path: Path
    size: int
    names: Sequence[str]

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of three columns (names of series, times and numbers), some at a time."""

    def wide(self, time: str, value: str | None) -> "Wide":
        """All rows, by columns: those of numbers, or only `value`."""


class Wide(Protocol):
    """All rows of a table, some columns at a time."""

    times: pa.ChunkedArray
    names: Sequence[str]
    """The columns of numbers, apart from the times."""

    def read(self, names: Sequence[str]) -> pa.Table:
        """Some of them."""


@contextmanager
def reading(path: Path, column: str | None = None) -> Iterator[None]:
    """Whatever is wrong with the file, or with one column of it, becomes SourceUnreadable."""
    where = "cannot be read:" if column is None else f'has a column "{column}" which'
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceUnreadable(f"{path} {where} {reason}") from error


def listed(names: Sequence[str]) -> str:
    """The columns that a file does have, for a message; not all of them where they are many."""
    shown = ", ".join(f'"{name}"' for name in names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


def size_of(path: Path) -> int:
    """Bytes of a file. Raises SourceUnreadable when it is none, may not be read or is empty."""
    with reading(path):
        size = path.stat().st_size
    if not path.is_file():
        raise SourceUnreadable(f"{path} is no file: name the files in it if it is a folder")
    with reading(path):
        path.open("rb").close()
    if not size:
        raise SourceUnreadable(f"{path} is empty: there is nothing to fit")
    return size


def with_progress(batches: Iterable[tuple[SeriesBatch, float]], size: int) -> Iterator[tuple[Chunk, int]]:
    """Batches, each with its share of the file (0 .. 1), as chunks with the bytes done."""
    done = 0.0
    for batch, share in batches:
        before, total = 0, len(batch) + len(batch.values)
        for piece in batch.cut(SERIES_PER_CHUNK, POINTS_PER_CHUNK):
            before += len(piece) + len(piece.values)
            yield piece, round(size * min(done + share * before / total, 1.0))
        done += share


def _check_names(given: Columns, table: Table) -> None:
    has = f"It has {listed(table.names)}"
    for role, name in given._asdict().items():
        if name is not None and name not in table.names:
            advice = f"name one of them with --{role}-column"
            raise SourceUnreadable(f'{table.path} has no column "{name}". {has}: {advice}')
    named = [name for name in given if name is not None]
    if len(set(named)) < len(named):
        raise SourceUnreadable(f"{table.path}: series, time and value need a column each. {has}")
    if len(set(table.names)) < len(table.names):
        raise SourceUnreadable(f"{table.path} has two columns of the same name: rename one. {has}")


def _usual(role: str, names: Sequence[str], given: Columns) -> str | None:
    free = {name.strip().lower(): name for name in reversed(names) if name not in given}
    return next((free[usual] for usual in _USUAL_NAMES[role] if usual in free), None)
