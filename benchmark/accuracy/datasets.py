"""Folders of labelled series, in the layouts in which the benchmarks of the field are published."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.csv
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

DEFAULT_WINDOW = 125
"""The window of a series without a period, as TSB-AD has it."""

_TSB_AD_NAME = re.compile(r"\d+_(?P<source>.+)_id_\d+_.+_tr_(?P<train>\d+)_1st_\d+\.csv")
_UCR_NAME = re.compile(r"\d+_UCR_Anomaly_.+_(?P<train>\d+)_(?P<begin>\d+)_(?P<end>\d+)\.txt")
_MANIFEST_COLUMNS = frozenset({"file", "source", "series", "train_prefix", "period_acf", "vus_window"})


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSeries:
    """A series of which it is known what is anomalous.

    name: of this series in its source. source: the benchmark that published it.
    timestamps_s: shape (n,), Unix seconds, or positions from 0 where the source gives no times.
    values: shape (n,). labels: shape (n,), true where a point is anomalous.
    train_prefix: points at the start to fit on, seldom labelled and not always clean.
    period_points: a hint, None where there is none. vus_window: the widest buffer of the VUS, in points.
    """

    name: str
    source: str
    timestamps_s: Floats
    values: Floats
    labels: Bools
    train_prefix: int
    period_points: int | None
    vus_window: int


class Layout(NamedTuple):
    """How a folder holds series: what to expect, and a reader that finds none in a folder of another layout."""

    expected: str
    read: Callable[[Path], Iterator[LabelledSeries]]


def load_folder(folder: Path) -> list[LabelledSeries]:
    """Read all series of a folder, whose layout is recognised by what lies in it.

    Raises ValueError where no layout fits, naming what was expected, and where a file of a layout is not what it says.
    """
    folder = folder.resolve()
    for layout in LAYOUTS:
        if series := list(layout.read(folder)):
            return series
    expected = "".join(f"\n- {layout.expected}" for layout in LAYOUTS)
    raise ValueError(f"No labelled series in {folder}. Expected is one of:{expected}")


def find_vus_window(values: Floats) -> int:
    """Find the lag at which the autocorrelation has its highest local maximum, 125 where that is no lag of 6 to 303.

    Source: `find_length_rank` with rank=1 of TSB-AD 1.5, which takes the first 20,000 points and lags of 3 to 400.
    Cost: O(n log n).
    """
    values = values[:20_000]
    spectrum = np.fft.rfft(values - values.mean(), n=2 * values.size)  # twice as long: no lag wraps around
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[3 : min(values.size, 401)]
    inner = correlation[1:-1]
    peaks = np.flatnonzero((inner > correlation[:-2]) & (inner > correlation[2:])) + 1
    if not peaks.size:
        return DEFAULT_WINDOW
    highest = int(peaks[np.argmax(correlation[peaks])])
    return highest + 3 if 3 <= highest <= 300 else DEFAULT_WINDOW  # noqa: PLR2004 -- the source counts from lag 3


def _read_tidemark(folder: Path) -> Iterator[LabelledSeries]:
    for path, row in _manifest_rows(folder):
        timestamps, column, labels = _columns(path, "timestamp", "value", "label")
        values = column.astype(np.float64)
        yield LabelledSeries(
            name=row["series"],
            source=row["source"],
            timestamps_s=_seconds(timestamps),
            values=values,
            labels=labels == 1,
            train_prefix=int(row["train_prefix"]),
            period_points=int(row["period_acf"] or 0) or None,
            vus_window=int(row["vus_window"] or find_vus_window(values)),
        )


def _manifest_rows(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Give the files that lie in the folder and their rows of the manifest, which lies there too or one folder up."""
    for place in (folder, folder.parent):
        if not (place / "manifest.csv").is_file():
            continue
        with (place / "manifest.csv").open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines)
            if not _MANIFEST_COLUMNS.issubset(rows.fieldnames or ()):
                continue
            for row in rows:
                if (place / row["file"]).is_relative_to(folder):
                    yield place / row["file"], row
        return


def _read_tsb_ad(folder: Path) -> Iterator[LabelledSeries]:
    for path, name in _matches(folder, _TSB_AD_NAME):
        values, labels = _columns(path, "Data", "Label")
        yield _without_times(name["source"], path.stem, values.astype(np.float64), labels == 1, int(name["train"]))


def _read_ucr(folder: Path) -> Iterator[LabelledSeries]:
    for path, name in _matches(folder, _UCR_NAME):
        values = np.array(path.read_text().split(), dtype=np.float64)  # one to a line, or all on one line
        labels = np.zeros(values.size, dtype=np.bool_)
        labels[int(name["begin"]) : int(name["end"])] = True
        yield _without_times("UCR", path.stem, values, labels, int(name["train"]))


def _without_times(source: str, name: str, values: Floats, labels: Bools, train_prefix: int) -> LabelledSeries:
    positions = np.arange(values.size, dtype=np.float64)
    return LabelledSeries(name, source, positions, values, labels, train_prefix, None, find_vus_window(values))


def _read_nab(folder: Path) -> Iterator[LabelledSeries]:
    path = folder / "labels" / "combined_windows.json"
    windows = json.loads(path.read_bytes()) if path.is_file() else {}
    for name, spans in windows.items():
        timestamps, column = _columns(folder / "data" / name, "timestamp", "value")
        timestamps_s, values = _seconds(timestamps), column.astype(np.float64)
        labels = np.zeros(values.size, dtype=np.bool_)
        for start_s, end_s in map(_seconds, np.array(spans, dtype="datetime64[us]")):
            labels |= (timestamps_s >= start_s) & (timestamps_s <= end_s)
        yield LabelledSeries(
            name=name.removesuffix(".csv"),
            source="NAB",
            timestamps_s=timestamps_s,
            values=values,
            labels=labels,
            train_prefix=min(values.size * 15 // 100, 750),  # NAB's probationary period, within which nothing is scored
            period_points=None,
            vus_window=find_vus_window(values),
        )


def _matches(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[Path, re.Match[str]]]:
    """Give the files whose names are of the pattern, in order, with what the names say."""
    for path in sorted(folder.glob("*")):
        if name := pattern.fullmatch(path.name):
            yield path, name


def _columns(path: Path, *names: str) -> list[NDArray[Any]]:
    """Read columns of a CSV file, compressed or not, which holds these columns only."""
    table = pyarrow.csv.read_csv(path)
    if table.column_names != list(names):
        raise ValueError(f"{path} holds the columns {', '.join(table.column_names)}. Expected are {', '.join(names)}.")
    return [column.to_numpy() for column in table.columns]


def _seconds(timestamps: NDArray[Any]) -> Floats:
    if timestamps.dtype.kind == "M":
        timestamps = (timestamps - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    return timestamps.astype(np.float64)


LAYOUTS = (
    Layout(
        "Tidemark: gzip CSVs with the columns timestamp, value and label, in a folder below that of their manifest.csv "
        f"with the columns {', '.join(sorted(_MANIFEST_COLUMNS))}; either folder will do",
        _read_tidemark,
    ),
    Layout("TSB-AD: NNN_SOURCE_id_N_DOMAIN_tr_NNN_1st_NNN.csv with the columns Data and Label", _read_tsb_ad),
    Layout("NAB: its repository, with labels/combined_windows.json and data/CATEGORY/NAME.csv", _read_nab),
    Layout("UCR anomaly archive: NNN_UCR_Anomaly_NAME_TRAIN_BEGIN_END.txt, a value to a line", _read_ucr),
)
