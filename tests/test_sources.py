"""Files as series: every form and format gives the points that are in it, or says what is wrong with the file."""

import gzip
import json
import pickle
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import SourceUnreadable
from app.series_batch import SeriesBatch
from app.sources import open_source
from app.sources.base import Columns, JsonLines
from app.sources.long_form import ROWS_IN_MEMORY

NOON = 1_705_000_000  # 2024-01-11T19:06:40Z
ANY = Columns(None, None, None)
Points = list[tuple[float, float]]

LONG = "series_id,timestamp,value\nb,1705000060,2.5\na,1705000000,1\nb,1705000000,2\n"
LONG_POINTS = {"b": [(NOON, 2.0), (NOON + 60, 2.5)], "a": [(NOON, 1.0)]}


def chunks_of(path: Path, columns: Columns = ANY, rows_in_memory: int = ROWS_IN_MEMORY) -> list[Any]:
    """The chunks as another process gets them; what is promised of every source is checked on the way."""
    source = open_source(path, columns, rows_in_memory)
    assert source.size == path.stat().st_size
    chunks, done = zip(*source.chunks(), strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == source.size
    return [pickle.loads(pickle.dumps(chunk)) for chunk in chunks]


def series_of(path: Path, columns: Columns = ANY, rows_in_memory: int = ROWS_IN_MEMORY) -> dict[str, Points]:
    found: dict[str, Points] = {}
    for chunk in chunks_of(path, columns, rows_in_memory):
        assert isinstance(chunk, SeriesBatch)
        for series_id, series in chunk:
            assert series_id not in found, "a series in two places"
            found[series_id] = list(zip(series.timestamps_s.tolist(), series.values.tolist(), strict=True))
    return found


def csv(folder: Path, text: str, name: str = "table.csv") -> Path:
    return lines(folder, text.encode(), name)


def lines(folder: Path, data: bytes, name: str = "fleet.ndjson") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
    return path


def parquet(folder: Path, columns: dict[str, Any], name: str = "table.parquet", **options: Any) -> Path:
    path = folder / name
    pq.write_table(pa.table(columns), path, **options)
    return path


def refusal(path: Path, columns: Columns = ANY) -> str:
    with pytest.raises(SourceUnreadable) as caught:
        chunks_of(path, columns)
    assert path.name in caught.value.detail
    return caught.value.detail


def test_long_form_gives_each_series_its_points_by_time(tmp_path: Path) -> None:
    found = series_of(csv(tmp_path, LONG))
    assert found == LONG_POINTS
    assert list(found) == ["b", "a"]


def test_a_table_without_a_series_column_is_one_series_named_like_the_file(tmp_path: Path) -> None:
    text = "ds,y,remark\n1705000060,2,late\n1705000000,1,early\n1705000120,,never\n"
    expected = [(NOON, 1.0), (NOON + 60, 2.0)]
    assert series_of(csv(tmp_path, text, "cpu.node-1.csv.gz")) == {"cpu.node-1": expected}
    table = {"ds": [NOON + 60, NOON, NOON + 120], "y": [2, 1, None], "remark": ["late", "early", "never"]}
    assert series_of(parquet(tmp_path, table, "cpu.pq")) == {"cpu": expected}


def test_a_table_with_neither_series_nor_value_has_a_series_in_each_column_of_numbers(tmp_path: Path) -> None:
    text = "Time,cpu,memory,host,spare\n1705000060,1,2.5,web,\n1705000000,3,,web,\n"
    expected = {"cpu": [(NOON, 3.0), (NOON + 60, 1.0)], "memory": [(NOON + 60, 2.5)], "spare": []}
    assert series_of(csv(tmp_path, text)) == expected
    table = {
        "Time": [NOON + 60, NOON],
        "cpu": pa.array([1, 3], pa.int8()),
        "memory": [2.5, float("nan")],
        "host": ["web", "web"],
        "spare": pa.nulls(2),
    }
    assert series_of(parquet(tmp_path, table)) == expected


def test_columns_can_be_named(tmp_path: Path) -> None:
    text = "id,series,when,time,watts,value\n1,x,1705000000,5,2.5,9\n"
    named = Columns("id", "when", "watts")
    assert series_of(csv(tmp_path, text), named) == {"1": [(NOON, 2.5)]}
    table = {"id": [1], "series": ["x"], "when": [NOON], "time": [5], "watts": [2.5], "value": [9]}
    assert series_of(parquet(tmp_path, table), named) == {"1": [(NOON, 2.5)]}


def test_a_column_that_is_named_has_no_second_role(tmp_path: Path) -> None:
    path = csv(tmp_path, "id,time\n2.5,1705000000\n", "sensor.csv")
    assert series_of(path, Columns(None, None, "id")) == {"sensor": [(NOON, 2.5)]}


@pytest.mark.parametrize("series", ["series_id", "SERIES", "Unique_ID", "item_id", " id", "Name", "metric"])
@pytest.mark.parametrize("time", ["timestamp", "Timestamps", "TS", "ds", "date", "datetime"])
@pytest.mark.parametrize("value", ["value", "Values", "Y"])
def test_usual_names_are_found_in_upper_and_lower_case(tmp_path: Path, series: str, time: str, value: str) -> None:
    path = csv(tmp_path, f"{value},{time},{series}\n1,1705000000,a\n")
    assert series_of(path) == {"a": [(NOON, 1.0)]}


def test_points_without_a_value_are_left_out_and_their_series_are_not(tmp_path: Path) -> None:
    text = "series_id,timestamp,value\na,1705000000,\nb,1705000000,1\nb,1705000060,NaN\nc,1705000000,null\n"
    expected = {"a": [], "b": [(NOON, 1.0)], "c": []}
    assert series_of(csv(tmp_path, text)) == expected
    assert series_of(csv(tmp_path, text), rows_in_memory=1) == expected
    table = {"series_id": ["a", "b", "b", "c"], "timestamp": [NOON] * 4, "value": [None, 1.0, float("nan"), None]}
    assert series_of(parquet(tmp_path, table)) == expected


def test_points_without_a_time_stay_to_be_refused_with_their_series(tmp_path: Path) -> None:
    path = csv(tmp_path, "series_id,timestamp,value\na,,1\na,2024-01-11T19:06:40Z,2\n")
    (batch,) = chunks_of(path)
    np.testing.assert_array_equal(batch.timestamps_s, [NOON, np.nan])


def test_points_of_no_series_are_one_series_without_a_name(tmp_path: Path) -> None:
    expected = {"": [(NOON, 1.0), (NOON + 60, 2.0)], "a": [(NOON, 3.0)]}
    rows = {"timestamp": [NOON, NOON + 60, NOON], "value": [1.0, 2.0, 3.0]}
    assert series_of(parquet(tmp_path, {"series_id": [None, None, "a"], **rows})) == expected
    assert series_of(csv(tmp_path, f"series_id,timestamp,value\n,{NOON},1\n,{NOON + 60},2\na,{NOON},3\n")) == expected


@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.csv.gz", "t.tsv", "t.tsv.gz", "t.TSV.GZ", "my.tsv.csv"])
def test_delimited_text_is_read_by_its_suffix(tmp_path: Path, name: str) -> None:
    text = LONG.replace(",", "\t") if name.lower().removesuffix(".gz").endswith(".tsv") else LONG
    assert series_of(csv(tmp_path, text, name)) == LONG_POINTS


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("a,", '"a",').replace("value", '"value"'),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("\n", ',"says ""no,\nno"""\n'),
    ],
    ids=["byte order mark", "carriage returns", "no last line end", "quotes", "blank lines", "quoted line ends"],
)
def test_csv_is_read_in_every_dress(tmp_path: Path, change: Callable[[str], str]) -> None:
    assert series_of(csv(tmp_path, change(LONG))) == LONG_POINTS


def test_names_of_series_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    names = ["007", "7", "NA", "null", "nan", "1e3", "true", "2024-01-01", "größe"]
    rows = "".join(f"{name},{NOON},1\n" for name in names)
    assert list(series_of(csv(tmp_path, "id,ts,value\n" + rows))) == names


def test_text_that_changes_its_look_far_into_the_file_is_read(tmp_path: Path) -> None:
    rows = [f"{number % 7},{NOON + number},{number},{'x' * 500}\n" for number in range(70_000)]
    rows.append(f"late,{NOON}.25,0.5,\n")
    found = series_of(csv(tmp_path, "id,time,value,remark\n" + "".join(rows)))
    assert found.pop("late") == [(NOON + 0.25, 0.5)]
    assert {name: len(points) for name, points in found.items()} == dict.fromkeys("0123456", 10_000)


ISO = "2024-01-11T19:06:40Z 2024-01-11T21:06:40+02:00 2024-01-11T19:06:40 2024-01-11T19:06:40.000000000"


@pytest.mark.parametrize("time", ["1705000000", "1705000000.0", "2024-01-11 19:06:40", *ISO.split()])
def test_times_as_text_may_be_seconds_or_iso_8601_in_utc_unless_they_say_otherwise(tmp_path: Path, time: str) -> None:
    expected = {"a": [(NOON, 1.0)]}
    assert series_of(csv(tmp_path, f"id,time,value\na,{time},1\n")) == expected
    assert series_of(csv(tmp_path, f"time,a\n{time},1\n")) == expected
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        table = {"id": ["a"], "time": pa.array([time], kind), "value": [1.0]}
        assert series_of(parquet(tmp_path, table)) == expected


KINDS_OF_TIME = [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Berlin")]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint32(), pa.float64(), *KINDS_OF_TIME], ids=str)
def test_times_in_parquet_may_have_any_type_of_time_or_number(tmp_path: Path, kind: pa.DataType) -> None:
    time = pa.array([datetime.fromtimestamp(NOON, UTC)] if kind in KINDS_OF_TIME else [NOON], kind)
    assert series_of(parquet(tmp_path, {"id": ["a"], "time": time, "value": [1]})) == {"a": [(NOON, 1.0)]}
    assert series_of(parquet(tmp_path, {"time": time, "a": [1]})) == {"a": [(NOON, 1.0)]}


def test_a_date_is_its_midnight_in_utc(tmp_path: Path) -> None:
    expected = {"a": [(1_704_931_200.0, 1.0)]}
    day = pa.array([date(2024, 1, 11)])
    assert series_of(parquet(tmp_path, {"id": ["a"], "date": day, "value": [1]})) == expected
    assert series_of(csv(tmp_path, "id,date,value\na,2024-01-11,1\n")) == expected


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.int8()]
)
def test_names_in_parquet_may_be_text_or_integers(tmp_path: Path, kind: pa.DataType) -> None:
    path = parquet(tmp_path, {"id": pa.array(["1", "2"]).cast(kind), "time": [NOON, NOON], "value": [1, 2]})
    assert series_of(path) == {"1": [(NOON, 1.0)], "2": [(NOON, 2.0)]}
    assert series_of(path, rows_in_memory=1) == {"1": [(NOON, 1.0)], "2": [(NOON, 2.0)]}


def test_values_in_parquet_may_have_any_type_of_number(tmp_path: Path) -> None:
    numbers = (pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(25, 2))
    for values in (pa.array([2]).cast(kind) for kind in numbers):
        assert series_of(parquet(tmp_path, {"id": ["a"], "time": [NOON], "value": values})) == {"a": [(NOON, 2.0)]}


def test_columns_in_parquet_may_have_dots_in_their_names(tmp_path: Path) -> None:
    wide = {"time": [NOON], "cpu": [1], "cpu.load": [2], "time.zone": ["UTC"]}
    assert series_of(parquet(tmp_path, wide)) == {"cpu": [(NOON, 1.0)], "cpu.load": [(NOON, 2.0)]}
    long = {"id": ["a"], "id.type": [3], "time": [NOON], "value.raw": [4], "value": [5]}
    assert series_of(parquet(tmp_path, long)) == {"a": [(NOON, 5.0)]}


@pytest.mark.parametrize("name", ["fleet.ndjson", "fleet.jsonl", "fleet.ndjson.gz", "fleet.jsonl.gz"])
def test_ndjson_is_cut_between_lines_and_every_chunk_knows_its_first(tmp_path: Path, name: str) -> None:
    data = b"".join(b'{"line": %d, "values": "%s"}\n' % (n, b"x" * (n * 37 % 5_000)) for n in range(1, 4_001))
    chunks = chunks_of(lines(tmp_path, data, name))
    assert b"".join(chunk.data for chunk in chunks) == data
    assert [json.loads(chunk.data.partition(b"\n")[0])["line"] for chunk in chunks] == [c.first_line for c in chunks]
    assert len(chunks) == 3
    assert all(chunk.data.endswith(b"\n") and len(chunk.data) < 4_100_000 for chunk in chunks)


def test_progress_through_compressed_lines_counts_compressed_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = open_source(lines(tmp_path, rng.bytes(5_000_000).hex("\n", 500).encode(), "fleet.ndjson.gz"), ANY)
    read, done = zip(*((len(chunk.data), done) for chunk, done in source.chunks()), strict=True)  # type: ignore[union-attr]
    assert np.allclose(np.array(done) / source.size, np.cumsum(read) / sum(read), atol=0.05)


def test_a_line_longer_than_a_chunk_stays_whole(tmp_path: Path) -> None:
    data = b"1\n" + b"2" * 9_000_000 + b"\n3"
    first, second = chunks_of(lines(tmp_path, data))
    assert first == JsonLines(1, data[:-1])
    assert second == JsonLines(3, b"3")


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    assert chunks_of(lines(tmp_path, b'\xef\xbb\xbf{"a": 1}\n')) == [JsonLines(1, b'{"a": 1}\n')]


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda _: b"no gzip", lambda data: data[:40] + b"!!!!"])
@pytest.mark.parametrize("name", ["a.ndjson.gz", "a.csv.gz"])
def test_damaged_compression_is_refused(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / name
    path.write_bytes(damage(gzip.compress(np.random.default_rng(0).bytes(5_000).hex().encode())))
    refusal(path)


def test_chunks_have_at_most_4000_series(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(5_000)]
    path = parquet(tmp_path, {"id": names * 2, "time": [1] * 5_000 + [2] * 5_000, "value": range(10_000)})
    chunks = chunks_of(path)
    assert [len(chunk) for chunk in chunks] == [4_000, 1_000]
    assert [name for chunk in chunks for name in chunk.series_ids] == names
    wide = parquet(tmp_path, {"time": [1, 2]} | {name: [1.0, 2.0] for name in names})
    assert [len(chunk) for chunk in chunks_of(wide)] == [4_000, 1_000]


def test_chunks_have_at_most_a_million_points_unless_one_series_has_more(tmp_path: Path) -> None:
    counts = [400_000, 600_000, 1, 1_200_000, 500_000, 500_001]
    names = pa.array([f"s{number}" for number in range(6)]).take(pa.array(np.repeat(np.arange(6), counts)))
    points = np.arange(sum(counts), dtype=np.float64)
    chunks = chunks_of(parquet(tmp_path, {"id": names, "time": points, "value": points}))
    points_of_series = [np.diff(chunk.offsets).tolist() for chunk in chunks]
    assert points_of_series == [[400_000, 600_000], [1], [1_200_000], [500_000], [500_001]]
    wide = parquet(tmp_path, {"time": points[:600_000]} | dict.fromkeys("abc", points[:600_000]))
    assert [len(chunk.values) for chunk in chunks_of(wide)] == [600_000] * 3


def test_a_chunk_takes_only_its_own_points_along_to_another_process(tmp_path: Path) -> None:
    points = np.arange(900_000, dtype=np.float64)
    names = pa.array(["a", "b", "c"]).take(pa.array(np.repeat(np.arange(3), 900_000)))
    path = parquet(tmp_path, {"id": names, "time": np.tile(points, 3), "value": np.tile(points, 3)})
    assert [len(pickle.dumps(chunk)) // 1_000_000 for chunk, _ in open_source(path, ANY).chunks()] == [14] * 3


NAMES = ["a", "b", "007", "7", "", "größe", "ab", "ba", "a" * 200, "a" * 64 + "b" * 64, "b" * 64 + "a" * 64]
Row = tuple[str, float, float | None]
ROWS = st.lists(
    st.tuples(
        st.sampled_from(NAMES) | st.text(st.characters(blacklist_categories=["C", "Z"]), max_size=5),
        st.integers(0, 20).map(float),
        st.none() | st.floats(-1e9, 1e9),
    ),
    min_size=1,
    max_size=25,
)


def grouped_slowly(rows: Sequence[Row]) -> dict[str, Points]:
    found: dict[str, Points] = {name: [] for name, _, _ in rows}
    for name, time, value in rows:
        if value is not None:
            found[name].append((time, value))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items()}


def quoted(rows: Sequence[Row]) -> Iterator[str]:
    yield "series_id,timestamp,value\n"
    for name, time, value in rows:
        yield '"{}",{},{}\n'.format(name.replace('"', '""'), time, "" if value is None else repr(value))


@given(rows=ROWS, rows_in_memory=st.sampled_from([0, 1, 5, 1_000]))
@settings(max_examples=60, deadline=None)
def test_series_are_the_same_as_by_the_slow_way_in_memory_and_on_disk(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], rows_in_memory: int
) -> None:
    folder = tmp_path_factory.mktemp("sources")
    names, times, values = zip(*rows, strict=True)
    table = {"series_id": names, "timestamp": times, "value": pa.array(values, pa.float64())}
    stored = parquet(folder, table, row_group_size=7)
    assert series_of(stored, rows_in_memory=rows_in_memory) == grouped_slowly(rows)
    assert series_of(csv(folder, "".join(quoted(rows))), rows_in_memory=rows_in_memory) == grouped_slowly(rows)


@pytest.mark.parametrize("by_time", [True, False], ids=["by time", "in any order"])
def test_a_fleet_over_many_blocks_is_the_same_in_memory_and_on_disk(tmp_path: Path, *, by_time: bool) -> None:
    codes, times = np.tile(np.arange(30_000), 80), np.repeat(np.arange(80.0), 30_000)
    order = np.arange(len(codes)) if by_time else np.random.default_rng(0).permutation(len(codes))
    names = pa.array([f"sensor_{number}" for number in range(30_000)]).take(pa.array(codes[order]))
    path = parquet(tmp_path, {"id": names, "time": times[order], "value": codes[order] * 1000 + times[order]})
    on_disk = chunks_of(path, rows_in_memory=500_000)
    assert {name: series.values.tolist() for chunk in on_disk for name, series in chunk} == {
        f"sensor_{code}": [code * 1000.0 + time for time in range(80)] for code in range(30_000)
    }
    assert max(len(chunk) for chunk in on_disk) < 2 * 30_000 / 64, "the partitions are not of one size"


def test_nothing_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv(tmp_path, LONG)
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    with closing(open_source(path, ANY, rows_in_memory=1).chunks()) as chunks:  # type: ignore[type-var]
        next(chunks)
        assert list(room.rglob("*.arrows"))
    assert not list(room.iterdir())
    assert series_of(path, rows_in_memory=1) == LONG_POINTS
    assert not list(room.iterdir())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does, short of filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_room_is_named(tmp_path: Path) -> None:
    path = csv(tmp_path, LONG)
    source = open_source(path, ANY, rows_in_memory=1)
    with files_of_at_most(100), pytest.raises(SourceUnreadable, match=r"more rows than fit into memory.* TMPDIR"):
        list(source.chunks())


@pytest.mark.parametrize("name", ["table.xlsx", "table", "table.gz", "csv", "table.json", "table.parquet.gz"])
def test_an_unknown_suffix_is_refused_with_those_that_are_known(tmp_path: Path, name: str) -> None:
    detail = refusal(csv(tmp_path, LONG, name))
    for known in (".csv", ".csv.gz", ".tsv", ".parquet", ".pq", ".ndjson", ".jsonl.gz"):
        assert known in detail


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".ndjson"])
def test_what_is_no_file_with_anything_in_it_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    assert "No such file" in refusal(path)
    path.touch()
    assert "is empty" in refusal(path)
    assert "Not a directory" in refusal(path / f"table{suffix}")
    path.unlink()
    path.mkdir()
    assert "name the files in it" in refusal(path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("lines.ndjson.gz", gzip.compress(b"", mtime=0)),
        ("lines.ndjson", b"\xef\xbb\xbf"),
        ("lines.jsonl.gz", gzip.compress(b"\xef\xbb\xbf", mtime=0)),
    ],
)
def test_lines_that_are_none_are_refused_and_not_taken_for_done(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert "is empty" in refusal(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("series_id,timestamp,value\na,1,2\nb,1,2,3\n", "Expected 3 columns, got 4: b,1,2,3"),
        ("series_id,timestamp,value\na,1,2\nb,1\n", "Expected 3 columns, got 2: b,1"),
        ("series_id,timestamp,value\na,1,much\n", "invalid value 'much'"),
        ("series_id,timestamp,value\na,2024-01-01,2\na,then,2\n", "\"timestamp\" which holds text .* such as 'then'"),
        ("series_id,timestamp,value\na,2024-01-01,2\na,2024-01-01T00:00:00Z,2\n", "such as '2024-01-01T00:00:00Z'"),
        ("series_id,timestamp,value\n", "no rows"),
        ("timestamp,value\n", "no rows"),
        ("timestamp,value,value\n1,2,3\n", "two columns of the same name"),
        ("series_id;timestamp;value\na;1;2\n", 'no column of times. It has "series_id;timestamp;value".*--time-column'),
        ("series_id,value\na,2\n", 'no column of times. It has "series_id", "value": name one with --time-column'),
        ("series_id,timestamp,watts\na,1,2\n", 'of values for its column of series, "series_id".*--value-column'),
        ("timestamp,host\n1,web\n", 'no column of numbers beside its times. It has "timestamp", "host"'),
        ("timestamp,value\nthen,2\n", "such as 'then'"),
        ("\n", "Empty CSV file"),
    ],
)
def test_csv_that_makes_no_series_is_refused_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SourceUnreadable, match=said):
        chunks_of(csv(tmp_path, text))


def test_csv_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for data in (
        LONG.encode("utf-16"),
        LONG.replace("a,", "ä,").encode("latin-1"),
        "größe,time\n1,2".encode("latin-1"),
    ):
        path.write_bytes(data)
        refusal(path)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": ["a"], "time": [True], "value": [1]}, '"time" which holds bool: send'),
        ({"id": ["a"], "time": [1], "value": ["1"]}, '"value" which holds string: send numbers'),
        ({"id": [1.5], "time": [1], "value": [1]}, '"id" which holds double: send the names'),
        ({"time": [b"1"], "value": [1]}, '"time" which holds binary: send'),
        ({"time": [1], "value": [True]}, '"value" which holds bool: send numbers'),
        ({"time": pa.array([], pa.int64()), "value": pa.array([], pa.int64())}, "no rows"),
        ({"time": [1], "host": ["web"]}, "no column of numbers"),
        ({"cpu": [1]}, 'no column of times. It has "cpu"'),
    ],
)
def test_parquet_that_makes_no_series_is_refused_with_what_is_wrong(
    tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
    with pytest.raises(SourceUnreadable, match=said):
        chunks_of(parquet(tmp_path, columns))


def test_broken_parquet_is_refused(tmp_path: Path) -> None:
    path = parquet(
        tmp_path, {"id": ["a"] * 1_000, "time": np.arange(1_000), "value": np.random.default_rng(0).random(1_000)}
    )
    data = path.read_bytes()
    for broken in (data[:-1], data[:100], data[1:], data[:40] + b"\xff" * 2_000 + data[2_040:]):
        path.write_bytes(broken)
        refusal(path)


@pytest.mark.parametrize(
    "named", [Columns("sensor", None, None), Columns(None, "when", None), Columns(None, None, "w")]
)
def test_a_named_column_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path, named: Columns) -> None:
    (role,) = (role for role, name in named._asdict().items() if name)
    table = {"id": ["a"], "time": [1], "value": [1]}
    for path in (csv(tmp_path, "id,time,value\na,1,1\n"), parquet(tmp_path, table)):
        detail = refusal(path, named)
        assert detail.endswith(f'It has "id", "time", "value": name one of them with --{role}-column')


def test_one_column_cannot_be_named_twice(tmp_path: Path) -> None:
    assert "a column each" in refusal(csv(tmp_path, LONG), Columns(None, "value", "value"))


def test_of_many_columns_a_message_names_the_first(tmp_path: Path) -> None:
    detail = refusal(parquet(tmp_path, {f"c{number}": [1] for number in range(1_000)}))
    assert '"c19" and 980 more' in detail
