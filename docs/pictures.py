"""What each detector finds and what it misses, drawn: `python docs/pictures.py [name ...]` writes docs/detectors/*.png.

Each picture is two experiments: a detector with default parameters is fitted to a simulated history and judges what
comes after it, point by point, as the service does. Only the history before what is drawn has been learnt from.
"""

# ruff: noqa: INP001
import sys
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.detectors import find_detector
from app.detectors.base import Verdicts
from app.injection import AnomalyKind, inject
from app.series import FloatArray, Series
from app.simulation import NORMAL_SERIES, simulate_sensor

FOLDER = Path(__file__).parent / "detectors"
HISTORY = 2_400
HISTORY_HARMED_AT = 936
BEFORE = 90
SHOWN = 240
CYCLE = 48
"""Points in a day of the sensor, one every half an hour."""

_VALUE, _EXPECTED, _ANOMALY, _PLANTED = "#0c6478", "#7d8a92", "#d13a1e", "#f7e6c4"
_BAND, _LOWEST_SCORE, _ROOM = "#0c647826", 0.03, 0.12
_QUIET, _COLOURS = "#566670", 64

Places = NDArray[np.bool_]
Harm = Callable[[Series, int, np.random.Generator], tuple[Series, Places]]
"""A series, where to begin, and what is drawn at random, to the series with something wrong and where that is."""


class Experiment(NamedTuple):
    """A series, what is wrong with it, and how that is called."""

    title: str
    series: Series
    harm: Harm
    before: Harm | None = None
    """What is wrong with the history too, in a place of its own."""


# ---- series and what is wrong with them ------------------------------------------------------------------------


def sensor(seed: int = 1) -> Series:
    """A daily swing of 48 points."""
    return simulate_sensor(HISTORY + SHOWN, seed=seed, interval_s=1800.0).series


def calm(seed: int = 1) -> Series:
    """The same with a twelfth of the noise."""
    series, rng = sensor(seed), np.random.default_rng(seed)
    swing = np.sin(2.0 * np.pi * np.arange(len(series)) / CYCLE)
    return Series(series.timestamps_s, 20.0 + 4.0 * swing + rng.normal(0.0, 0.05, len(series)))


def simulated(name: str, seed: int = 1) -> Series:
    """One of the series in which nothing is wrong."""
    return NORMAL_SERIES[name](HISTORY + SHOWN, seed)


def wandering(seed: int = 1) -> Series:
    """A sensor whose level wanders."""
    series, rng = sensor(seed), np.random.default_rng(seed)
    return Series(series.timestamps_s, series.values + np.cumsum(rng.normal(0.0, 0.15, len(series))))


def walk(seed: int = 1) -> Series:
    """A level that wanders, and noise."""
    rng, times = np.random.default_rng(seed), simulated("gaussian").timestamps_s
    return Series(times, 20.0 + np.cumsum(rng.normal(0.0, 0.25, len(times))) + rng.normal(0.0, 0.5, len(times)))


def places(series: Series, first: int, length: int) -> Places:
    """The points of a series that are so many from this one on: shape (n,)."""
    index = np.arange(len(series))
    chosen: Places = (index >= first) & (index < first + length)
    return chosen


def planted(kind: AnomalyKind, size: float, length: int, *, after: int = 0, period_points: int | None = None) -> Harm:
    """An anomaly of a known kind."""

    def harm(series: Series, start: int, rng: np.random.Generator) -> tuple[Series, Places]:
        first = start + after
        harmed = inject(series, kind, size, start=first, length=length, period_points=period_points, rng=rng)
        return harmed, places(series, first, length)

    return harm


def replaced(by: Callable[[FloatArray], FloatArray], length: int, after: int = 0) -> Harm:
    """So many points, replaced by a function of them."""

    def harm(series: Series, start: int, rng: np.random.Generator) -> tuple[Series, Places]:
        del rng
        chosen, values = places(series, start + after, length), series.values.copy()
        values[chosen] = by(values[chosen])
        return Series(series.timestamps_s, values), chosen

    return harm


def all_of(*harms: Harm) -> Harm:
    """One after the other."""

    def harm(series: Series, start: int, rng: np.random.Generator) -> tuple[Series, Places]:
        chosen = places(series, 0, 0)
        for each in harms:
            series, of_each = each(series, start, rng)
            chosen |= of_each
        return series, chosen

    return harm


def days_up_and_down() -> Series:
    """A sensor whose days go up first or down first, by chance."""
    series, rng = sensor(), np.random.default_rng(3)
    points = np.arange(len(series))
    way = rng.choice((-1.0, 1.0), len(series) // CYCLE + 1)[points // CYCLE]
    swing = 4.0 * way * np.sin(2.0 * np.pi * points / CYCLE)
    return Series(series.timestamps_s, 20.0 + swing + rng.normal(0.0, 0.6, len(series)))


def far_off(points: int, sigmas: float) -> Harm:
    """So many points so far above all others."""
    return replaced(lambda values: values + sigmas, points)


def day_upside_down(after: int = 0) -> Harm:
    """A cycle, mirrored at the level of the sensor."""
    return replaced(lambda values: 40.0 - values, CYCLE, after)


def day_at_the_level(after: int = 0) -> Harm:
    """A cycle of noise alone."""
    return replaced(lambda values: 20.0 + 0.1 * (values - values.mean()), CYCLE, after)


MISSING_DAY = planted("missing_season", 0.0, CYCLE, period_points=CYCLE)
DRIFT = planted("drift", 8.0, 120)

EXPERIMENTS: Mapping[str, tuple[Experiment, Experiment]] = {
    "auto": (
        Experiment("a day without its swing", sensor(), MISSING_DAY),
        Experiment("a slow drift of a level that wanders", walk(), DRIFT),
    ),
    "mean_std": (
        Experiment("a level shift of 5 sigma", simulated("gaussian"), planted("level_shift", 5.0, 40)),
        Experiment("a day without its swing", sensor(), MISSING_DAY),
    ),
    "subsequence_knn": (
        Experiment("a wave on top of the swing", sensor(), planted("shape", 5.0, CYCLE, period_points=CYCLE)),
        Experiment(
            "a day upside down, as once in the history", sensor(), day_upside_down(after=6), day_upside_down(after=24)
        ),
    ),
    "robust_z": (
        Experiment(
            "a spike of 6 sigma; 5 % of the history are 20 off",
            simulated("gaussian"),
            planted("spike", 6.0, 1),
            far_off(HISTORY // 20, 20.0),
        ),
        Experiment("a day upside down", sensor(), day_upside_down()),
    ),
    "ewma": (
        Experiment(
            "a spike, and the beginning of a shift, of 8 sigma",
            walk(),
            all_of(planted("spike", 8.0, 1), planted("level_shift", 8.0, 40, after=50)),
        ),
        Experiment("a slow drift of a level that wanders", walk(), DRIFT),
    ),
    "seasonal": (
        Experiment("a day upside down", sensor(), day_upside_down()),
        Experiment(
            "how long a shift lasts, of a level that wanders",
            wandering(),
            planted("level_shift", 8.0, 60, period_points=CYCLE),
        ),
    ),
    "autoregressive": (
        Experiment("a small dip of a smooth series", calm(), planted("dip", 15.0, 1, after=10, period_points=CYCLE)),
        Experiment("a slow drift of a level that wanders", walk(), DRIFT),
    ),
    "changepoint": (
        Experiment("a level shift of 2 sigma", simulated("gaussian"), planted("level_shift", 2.0, 60)),
        Experiment("a level shift of a level that wanders", walk(), planted("level_shift", 8.0, 60)),
    ),
    "spectral_residual": (
        Experiment("a dip beside a season", sensor(), planted("dip", 8.0, 1, after=10, period_points=CYCLE)),
        Experiment("how long a level shift lasts", simulated("gaussian"), planted("level_shift", 5.0, 60)),
    ),
    "sub_pca": (
        Experiment("a small dip of a smooth series", calm(), planted("dip", 15.0, 1, after=10, period_points=CYCLE)),
        Experiment("a day of nothing between two kinds of days", days_up_and_down(), day_at_the_level(after=6)),
    ),
    "kmeans_windows": (
        Experiment("a day without its swing", sensor(), MISSING_DAY),
        Experiment("a small dip of a smooth series", calm(), planted("dip", 15.0, 1, after=10, period_points=CYCLE)),
    ),
    "isolation_forest": (
        Experiment("more noise", simulated("gaussian"), planted("variance_change", 3.0, 60)),
        Experiment("a small wave in noise that has a memory", simulated("autoregressive"), planted("shape", 2.0, 60)),
    ),
    "lof": (
        Experiment("a wave on top of the swing", sensor(), planted("shape", 5.0, CYCLE, period_points=CYCLE)),
        Experiment(
            "a day upside down, as twice in the history",
            sensor(),
            day_upside_down(after=6),
            all_of(day_upside_down(after=-456), day_upside_down(after=504)),
        ),
    ),
    "ensemble": (
        Experiment("a spike of 6 sigma", simulated("gaussian"), planted("spike", 6.0, 1)),
        Experiment("a slow drift of a level that wanders", walk(), DRIFT),
    ),
    "one_class_svm": (
        Experiment("a day without its swing", sensor(), MISSING_DAY),
        Experiment("a dip of 5 sigma beside a swing", sensor(), planted("dip", 5.0, 1, after=10, period_points=CYCLE)),
    ),
}


# ---- drawing -----------------------------------------------------------------------------------------------------


def draw(name: str) -> Figure:
    """The picture of one detector: what it finds on the left, what it misses on the right."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    grid = figure.subplots(2, 2, sharex="col", height_ratios=(2.2, 1.0))
    for column, (word, experiment) in enumerate(zip(("finds", "misses"), EXPERIMENTS[name], strict=True)):
        harmed, chosen, verdicts = judge(name, experiment)
        values, scores = grid[0, column], grid[1, column]
        inside, others = (np.count_nonzero(verdicts.is_anomaly & which) for which in (chosen, ~chosen))
        values.set_title(f"{word}: {experiment.title}", fontsize=9, loc="left", fontweight="bold")
        counts = f"{inside} of {np.count_nonzero(chosen)} flagged, and {others} others"
        values.text(0.995, 0.03, counts, transform=values.transAxes, fontsize=7.5, ha="right", color=_QUIET)
        draw_values(values, harmed, verdicts)
        draw_scores(scores, verdicts)
        near = np.convolve(chosen, (1.0, 1.0, 1.0), "same") > 0
        for axes in (values, scores):
            where = {"where": near, "transform": axes.get_xaxis_transform()}
            axes.fill_between(np.arange(SHOWN), 0, 1, color=_PLANTED, alpha=0.7, lw=0, zorder=0, **where)
            axes.tick_params(labelsize=7, length=2)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_xlim(0, SHOWN - 1)
    grid[0, 0].set_ylabel("value, band", fontsize=8)
    grid[1, 0].set_ylabel("score", fontsize=8)
    return figure


def judge(name: str, experiment: Experiment) -> tuple[FloatArray, Places, Verdicts]:
    """What comes after the history, which of these points are planted, and the verdicts on them as they come."""
    rng = np.random.default_rng(5)
    series = experiment.series
    if experiment.before is not None:
        series, _ = experiment.before(series, HISTORY_HARMED_AT, rng)
    series, chosen = experiment.harm(series, HISTORY + BEFORE, rng)
    detector = find_detector(name)
    fitted = detector.fit(series.first(HISTORY), detector.Params())
    later = series.last(SHOWN)
    return later.values, chosen[HISTORY:], fitted.score(later)


def draw_values(axes: Axes, values: FloatArray, verdicts: Verdicts) -> None:
    """Points, what was expected of them, their bands, and those that are flagged."""
    points = np.arange(len(values))
    lowest, highest = float(values.min()), float(values.max())
    room = _ROOM * (highest - lowest)
    axes.set_ylim(lowest - 2 * room, highest + room)
    lower, upper = (np.clip(bound, lowest - 9 * room, highest + 9 * room) for bound in (verdicts.lower, verdicts.upper))
    axes.fill_between(points, lower, upper, color=_BAND, lw=0)
    axes.plot(points, verdicts.expected, color=_EXPECTED, lw=0.8, ls=(0, (3, 2)))
    axes.plot(points, values, color=_VALUE, lw=1.0)
    axes.plot(points[verdicts.is_anomaly], values[verdicts.is_anomaly], ".", color=_ANOMALY, ms=5)


def draw_scores(axes: Axes, verdicts: Verdicts) -> None:
    """The scores, and where they mean an anomaly."""
    points, scores = np.arange(len(verdicts.score)), np.maximum(verdicts.score, _LOWEST_SCORE)
    axes.set_yscale("log")
    axes.set_ylim(_LOWEST_SCORE, max(3.0, 1.3 * float(scores.max())))
    axes.plot(points, scores, color=_VALUE, lw=0.8)
    axes.axhline(1.0, color=_ANOMALY, lw=0.7)
    axes.fill_between(points, 1.0, scores, where=scores > 1.0, color=_ANOMALY, alpha=0.35, lw=0)
    axes.set_yticks([0.1, 1.0] + [10.0] * (float(scores.max()) > 5.0), minor=False)  # noqa: PLR2004
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def main(names: Sequence[str]) -> None:
    """Write the pictures of these detectors, or of all."""
    FOLDER.mkdir(exist_ok=True)
    for name in names or EXPERIMENTS:
        drawn = BytesIO()
        draw(name).savefig(drawn, dpi=100, metadata={"Software": None})
        few_colours = Image.open(drawn).convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE)
        few_colours.save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
