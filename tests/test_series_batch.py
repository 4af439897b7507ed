"""Many series in one piece: found, cut and checked exactly as one by one; and what tables of points become."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Fault
from app.series import LATEST_TIMESTAMP_S, Series, find_history_faults, parse_history, parse_timestamp
from app.series_batch import SeriesBatch
from app.tables import group_rows, names_of, timestamps_of, values_of

NAN = float("nan")
ODD = st.sampled_from(
    [NAN, np.inf, -np.inf, -1.0, -0.0, 0.0, LATEST_TIMESTAMP_S, LATEST_TIMESTAMP_S * 2, 1e308, -1e308]
)
TIMES = st.integers(0, 30).map(float)
VALUES = st.integers(-2, 2).map(float)


def series_of(times: Sequence[float], values: Sequence[float]) -> Series:
    return Series(np.array(times, np.float64), np.array(values, np.float64))


def points(times: st.SearchStrategy[float], values: st.SearchStrategy[float]) -> st.SearchStrategy[Series]:
    rows = st.lists(st.tuples(times, values), max_size=8)
    ordered = rows.map(lambda found: sorted(found, key=lambda row: row[0]))
    distinct = ordered.map(lambda found: [row for n, row in enumerate(found) if not n or row[0] > found[n - 1][0]])
    return st.one_of(rows, ordered, distinct).map(lambda found: series_of([t for t, _ in found], [v for _, v in found]))


SOUND = st.lists(VALUES, min_size=4, max_size=8).map(
    lambda values: series_of([*range(len(values) + 1)], [*values, 9.0])
)
FLEETS = st.lists(st.one_of(SOUND, points(TIMES, VALUES), points(TIMES | ODD, VALUES | ODD)), min_size=1, max_size=8)


def batch_of(histories: Sequence[Series]) -> SeriesBatch:
    return SeriesBatch.of([(f"s{number}", history) for number, history in enumerate(histories)])


def as_lists(batch: SeriesBatch) -> list[tuple[str, list[float], list[float]]]:
    return [(name, series.timestamps_s.tolist(), series.values.tolist()) for name, series in batch]


# ---- pieces --------------------------------------------------------------------------------------------------


@given(FLEETS)
def test_a_batch_has_the_series_that_it_was_made_of(histories: list[Series]) -> None:
    batch = batch_of(histories)
    assert len(batch) == len(histories)
    for (name, found), (number, history) in zip(batch, enumerate(histories), strict=True):
        assert name == f"s{number}"
        np.testing.assert_array_equal(found.timestamps_s, history.timestamps_s)
        np.testing.assert_array_equal(found.values, history.values)


@given(fleet=st.lists(SOUND, min_size=1, max_size=8), data=st.data())
def test_a_slice_has_the_series_in_it_and_shares_their_memory(fleet: list[Series], data: st.DataObject) -> None:
    batch = batch_of(fleet)
    first = data.draw(st.integers(0, len(fleet)))
    last = data.draw(st.integers(first, len(fleet)))
    part = batch.slice(first, last)
    assert as_lists(part) == as_lists(batch)[first:last]
    assert not len(part.values) or np.shares_memory(part.values, batch.values)


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=20),
    most_series=st.integers(1, 5),
    most_points=st.integers(1, 20),
)
def test_pieces_are_as_large_as_they_may_be(lengths: list[int], most_series: int, most_points: int) -> None:
    batch = batch_of([series_of(range(length), range(length)) for length in lengths])
    pieces = list(batch.cut(most_series, most_points))
    assert [series for piece in pieces for series in as_lists(piece)] == as_lists(batch)
    for piece in pieces:
        assert 1 <= len(piece) <= most_series
        assert len(piece) == 1 or len(piece.values) <= most_points
    for piece, following in pairwise(pieces):  # no two that would fit into one
        fits = len(piece.values) + len(following.slice(0, 1).values) <= most_points
        assert len(piece) == most_series or not fits


def test_nothing_is_cut_into_no_pieces() -> None:
    empty = SeriesBatch([], np.zeros(1, np.int64), np.zeros(0), np.zeros(0))
    assert list(empty.cut(5, 5)) == []
    assert empty.faults(3, 10) == []


# ---- faults --------------------------------------------------------------------------------------------------


@given(histories=FLEETS, min_points=st.integers(2, 4), max_points=st.integers(4, 8))
def test_faults_of_a_batch_are_those_of_each_series_by_itself(
    histories: list[Series], min_points: int, max_points: int
) -> None:
    expected: list[list[Fault]] = [[] for _ in histories]
    for history, faults in zip(histories, expected, strict=True):
        find_history_faults(history, min_points, max_points, faults)
    assert batch_of(histories).faults(min_points, max_points) == expected


@given(histories=FLEETS)
def test_a_series_of_a_table_is_refused_exactly_when_it_is_refused_as_json(histories: list[Series]) -> None:
    for history, found in zip(histories, batch_of(histories).faults(3, 7), strict=True):
        faults: list[Fault] = []
        parse_history(history.timestamps_s.tolist(), history.values.tolist(), min_points=3, max_points=7, faults=faults)
        assert bool(found) == bool(faults)


# ---- rows ----------------------------------------------------------------------------------------------------

ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "", "ä"]), TIMES | ODD, VALUES), max_size=30)
ENCODINGS = ("text", "large text", "dictionary", "foreign dictionary", "chunks", "chunks of dictionaries")


def encoded(names: Sequence[str], how: str) -> pa.Array | pa.ChunkedArray:
    text = pa.array(names, pa.string())
    if how == "large text":
        return text.cast(pa.large_string())
    if how == "dictionary":
        return text.dictionary_encode()
    if how == "foreign dictionary":  # in another order, with names that no row has, and one that is there twice
        foreign = ["?", "ä", "", "c", "b", "a", "!", "a"]
        rng = np.random.default_rng(len(names))
        codes = [int(rng.choice([n for n, name in enumerate(foreign) if name == wanted])) for wanted in names]
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), foreign)
    if how == "chunks":
        return pa.chunked_array([text[:7], text[7:7], text[7:]], pa.string())
    if how == "chunks of dictionaries":
        kind = pa.dictionary(pa.int32(), pa.string())
        return pa.chunked_array([text[:7].dictionary_encode(), text[7:].dictionary_encode()], kind)
    return text


@given(rows=ROWS, how=st.sampled_from(ENCODINGS))
def test_rows_are_grouped_by_first_appearance_and_each_group_is_by_time(
    rows: list[tuple[str, float, float]], how: str
) -> None:
    names = [name for name, _, _ in rows]
    times, values = np.array([row[1] for row in rows], float), np.array([row[2] for row in rows], float)
    batch, order = group_rows(encoded(names, how), times, values)
    slow: dict[str, list[int]] = {name: [] for name in names}
    for index, name in enumerate(names):
        slow[name].append(index)
    slow = {name: sorted(group, key=lambda n: (np.isnan(times[n]), times[n])) for name, group in slow.items()}
    expected = [index for group in slow.values() for index in group]
    assert list(batch.series_ids) == list(slow)
    assert np.diff(batch.offsets).tolist() == [len(group) for group in slow.values()]
    assert (expected if order is None else order.tolist()) == expected
    np.testing.assert_array_equal(batch.timestamps_s, times[expected])
    np.testing.assert_array_equal(batch.values, values[expected])


def test_rows_that_are_grouped_already_are_not_copied() -> None:
    times, values = np.array([1.0, 2.0, 1.0]), np.array([5.0, 6.0, 7.0])
    batch, order = group_rows(pa.array(["b", "b", "a"]), times, values)
    assert order is None
    assert batch.values is values


@pytest.mark.parametrize("column", [pa.array(["a", None]), pa.DictionaryArray.from_arrays([0, 1], ["a", None])])
def test_rows_without_a_name_are_counted(column: pa.Array) -> None:
    with pytest.raises(ValueError, match="empty in 1 rows"):
        group_rows(column, np.zeros(2), np.zeros(2))


# ---- columns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5]), pa.array([True]), pa.array([b"a"]), pa.array([["a"]]), pa.array([{"a": 1}]), pa.nulls(1),
        pa.array([1.5]).dictionary_encode(),
    ],
)  # fmt: skip
def test_names_of_other_types_are_refused(column: pa.Array) -> None:
    with pytest.raises(ValueError, match="send the names of the series as text"):
        names_of(column)
    with pytest.raises(ValueError, match="send the names of the series as text"):
        names_of(pa.chunked_array([column])[:0])


MICROSECONDS = st.integers(0, 2**53)


@given(st.lists(st.none() | MICROSECONDS, max_size=9))
def test_a_time_of_any_type_is_the_same_float_as_in_json(times_us: list[int | None]) -> None:
    texts = [
        None if us is None else datetime.fromtimestamp(us // 10**6, UTC).replace(microsecond=us % 10**6).isoformat()
        for us in times_us
    ]
    expected = [NAN if text is None else parse_timestamp(text) for text in texts]
    stored = pa.array(times_us, pa.timestamp("us", "UTC"))
    columns: list[Any] = [stored, stored.cast(pa.timestamp("us", "Asia/Tokyo")), pa.chunked_array([stored])]
    columns.append(stored.cast(pa.timestamp("ns", "UTC")))
    columns += [pa.array(texts, kind) for kind in (pa.string(), pa.large_string(), pa.string_view())]
    columns.append(pa.array(texts, pa.string()).dictionary_encode())
    for column in columns:
        np.testing.assert_array_equal(timestamps_of(column), expected)


@given(st.lists(st.none() | st.floats(width=32) | st.integers(-(2**24), 2**24).map(float), max_size=9))
def test_numbers_of_any_type_are_the_float_that_is_meant(numbers: list[float | None]) -> None:
    expected = [NAN if number is None else number for number in numbers]
    for kind in (pa.float64(), pa.float32()):
        column = pa.array(numbers, kind)
        np.testing.assert_array_equal(values_of(column), expected)
        np.testing.assert_array_equal(timestamps_of(pa.chunked_array([column])), expected)
    whole = [None if number is None or not np.isfinite(number) else int(number) for number in numbers]
    whole = [number if number is not None and abs(number) < 2**31 else None for number in whole]
    column = pa.array(whole, pa.int64())
    np.testing.assert_array_equal(values_of(column), [NAN if number is None else number for number in whole])
    np.testing.assert_array_equal(values_of(column.cast(pa.int32())), values_of(column))


def test_a_column_of_nothing_holds_no_values() -> None:
    np.testing.assert_array_equal(values_of(pa.nulls(2)), [NAN, NAN])


@pytest.mark.parametrize("column", [pa.array([True]), pa.array(["1"]), pa.array([b"1"]), pa.array([[1]])])
def test_values_of_other_types_are_refused(column: pa.Array) -> None:
    with pytest.raises(ValueError, match=f"holds {str(column.type)[:4]}.*: send numbers"):
        values_of(column)


@pytest.mark.parametrize("column", [pa.array([True]), pa.array([b"1"]), pa.array([{"a": 1}]), pa.array(["soon"])])
def test_times_of_other_types_are_refused(column: pa.Array) -> None:
    with pytest.raises(ValueError, match="send Unix seconds"):
        timestamps_of(column)
