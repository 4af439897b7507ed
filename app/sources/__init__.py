"""The family of sources: from a file, by its suffix, to the chunks of series that are fitted from it."""

from collections.abc import Callable
from pathlib import Path

from app.errors import SourceUnreadable
from app.sources.base import Columns, Source, Table, listed
from app.sources.delimited import DelimitedFile
from app.sources.long_form import ROWS_IN_MEMORY, LongForm
from app.sources.ndjson import NdjsonFile
from app.sources.parquet import ParquetTable
from app.sources.wide_form import WideForm

_TABLES: dict[str, Callable[[Path], Table]] = {
    ".csv": DelimitedFile,
    ".csv.gz": DelimitedFile,
    ".tsv": DelimitedFile,
    ".tsv.gz": DelimitedFile,
    ".parquet": ParquetTable,
    ".pq": ParquetTable,
}
_LINES = (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz")


def open_source(path: Path, columns: Columns, rows_in_memory: int = ROWS_IN_MEMORY) -> Source:
    """The series of a file.

    A table with a column of series is in long form, a row for each point. One without, but with a column of values, is
    one series, named like the file. One with neither has a column for each series. NDJSON has fields of fixed names, so
    `columns` says nothing about it.

    Tables in long form with more than `rows_in_memory` rows are grouped on the disk. Raises SourceUnreadable.
    """
    suffix = next((suffix for suffix in (*_TABLES, *_LINES) if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        known = ", ".join((*_TABLES, *_LINES))
        raise SourceUnreadable(
            f"{path} is in a format that is not known by its name: it should end with one of {known}"
        )
    if suffix in _LINES:
        return NdjsonFile(path)
    return _form_of(_TABLES[suffix](path), columns, path.name[: -len(suffix)], rows_in_memory)


def _form_of(table: Table, columns: Columns, stem: str, rows_in_memory: int) -> Source:
    series, time, value = columns.found_in(table)
    if time is None:
        raise _missing(table, "times", "time")
    if series is None:
        return WideForm(table, time, value, stem)
    if value is None:
        raise _missing(table, f'values for its column of series, "{series}"', "value")
    return LongForm(table, (series, time, value), rows_in_memory)


def _missing(table: Table, what: str, role: str) -> SourceUnreadable:
    has = f"It has {listed(table.names)}"
    return SourceUnreadable(f"{table.path} has no column of {what}. {has}: name one with --{role}-column")
