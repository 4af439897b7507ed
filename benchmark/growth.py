"""How time, memory and storage grow with the number of series."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmark.fleets import POINTS
from benchmark.imports import Imported, import_fleet
from benchmark.measures import MB
from benchmark.testbed import Testbed

SIZES = (1_000, 10_000, 100_000, 1_000_000)
_SLOPE_FROM = 10_000


class GrowthRow(NamedTuple):
    """One size of fleet."""

    series: str
    time: str
    per_second: str = ""
    peak_memory: str = ""
    database_each: str = ""
    disk_each: str = ""


COLUMNS = ("series", "time", "series/s", "peak memory", "database, a series", "artifacts on disk, a series")


def measure_growth(bed: Testbed) -> Iterator[GrowthRow]:
    """Fleets of each size, fitted by `python -m app fit` with one worker; draws the plot and keeps its data."""
    runs = [import_fleet(bed, series) for series in SIZES]
    (bed.results / "growth.json").write_text(json.dumps([_figures(run) for run in runs], indent=2) + "\n")
    draw(runs, bed.results / "growth.png")
    for run in runs:
        series = run.fleet.series
        yield GrowthRow(
            f"{series:,}",
            f"{run.seconds:.1f} s",
            f"{series / run.seconds:,.0f}",
            f"{run.peak_memory_mb:.0f} MB",
            f"{run.database_bytes / series:,.0f} B",
            f"{run.disk_bytes / series:,.0f} B",
        )
    yield GrowthRow(f"slope of log time, from {_SLOPE_FROM:,} on (1 is linear)", f"{slope(runs):.2f}")


def slope(runs: Sequence[Imported]) -> float:
    """The exponent of the growth of time: 1 when twice the series take twice the time."""
    large = [run for run in runs if run.fleet.series >= _SLOPE_FROM]
    series, seconds = [run.fleet.series for run in large], [run.seconds for run in large]
    return float(np.polyfit(np.log10(series), np.log10(seconds), 1)[0])


def draw(runs: Sequence[Imported], path: Path) -> None:
    """Two panels: time, and what is stored and held in memory."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    time_axes, space_axes = figure.subplots(1, 2)
    series = np.array([run.fleet.series for run in runs], dtype=np.float64)
    _draw_time(time_axes, series, [run.seconds for run in runs])
    spaces = {
        "artifacts on disk": [run.disk_bytes / MB for run in runs],
        "database": [run.database_bytes / MB for run in runs],
        "peak memory of the process": [run.peak_memory_mb for run in runs],
    }
    _draw_spaces(space_axes, series, spaces)
    for axes in (time_axes, space_axes):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(f"series of {POINTS} points")
        axes.margins(x=0.18)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(_plain))
        axes.grid(which="major", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def _plain(number: float, _: object) -> str:
    return f"{number:,.0f}" if number >= 1 else f"{number:g}"


def _draw_time(axes: Axes, series: np.ndarray, seconds: list[float]) -> None:
    axes.plot(series, series * seconds[-1] / series[-1], "--", color="0.6", label="linear")
    axes.plot(series, seconds, "o-", color="C0", label="python -m app fit, one worker")
    for x, y in zip(series, seconds, strict=True):
        axes.annotate(f"{y:.1f} s", (x, y), (-6, 6), textcoords="offset points", ha="right")
    axes.set_ylabel("time, s")
    axes.set_title("Time to fit")


def _draw_spaces(axes: Axes, series: np.ndarray, spaces: dict[str, list[float]]) -> None:
    for (name, megabytes), style in zip(spaces.items(), ("o-", "s-", "^-"), strict=True):
        axes.plot(series, megabytes, style, label=name)
    axes.set_ylabel("MB")
    axes.set_title("Storage and memory")


def _figures(run: Imported) -> dict[str, float]:
    return {
        "series": run.fleet.series,
        "points_per_series": POINTS,
        "seconds": round(run.seconds, 2),
        "peak_memory_mb": round(run.peak_memory_mb, 1),
        "database_bytes": run.database_bytes,
        "disk_bytes": run.disk_bytes,
    }
