"""Simulated series, normal and with anomalies, for trying out, tests and benchmarks: the same seed, the same series."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from app.series import FloatArray, Series

DAY_POINTS = 1440
"""Points in a day of a series of NORMAL_SERIES: their interval is 60 s."""

_DAY_S = 86_400
_LEVEL = 20.0
_DAILY_SWING = 4.0
_NOISE_STD = 0.6
_SPIKE_STDS = (12.0, 20.0)

_MONDAY_S = 1_704_067_200.0
_INTERVAL_S = 60.0
_WORKDAYS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """A series, and which of its points are planted anomalies: shape (n,)."""

    series: Series
    is_anomaly: NDArray[np.bool_]


def simulate_sensor(
    points: int, *, seed: int = 0, interval_s: float = 300.0, start_s: float = 1_705_000_000.0, anomalies: int = 0
) -> Simulation:
    """A temperature sensor: a level, a daily swing, Gaussian noise, and `anomalies` single spikes and dips.

    points: 1 or more; interval_s: seconds between two of them; anomalies: at most `points`.
    Spikes and dips are 12 to 20 standard deviations of the noise high or deep.
    """
    rng = np.random.default_rng(seed)
    timestamps_s = start_s + interval_s * np.arange(points, dtype=np.float64)
    values = _LEVEL + _DAILY_SWING * np.sin(2 * np.pi * timestamps_s / _DAY_S) + rng.normal(0.0, _NOISE_STD, points)
    planted = rng.choice(points, size=anomalies, replace=False)
    values[planted] += rng.choice((-1.0, 1.0), anomalies) * rng.uniform(*_SPIKE_STDS, anomalies) * _NOISE_STD
    is_anomaly = np.zeros(points, dtype=np.bool_)
    is_anomaly[planted] = True
    return Simulation(Series(timestamps_s, values), is_anomaly)


def _gaussian(n: int, rng: np.random.Generator) -> FloatArray:
    return rng.normal(_LEVEL, 1.0, n)


def _heavy_tailed(n: int, rng: np.random.Generator) -> FloatArray:
    """Student's t with 3 degrees of freedom: one point in a hundred is more than 5.8 off."""
    return _LEVEL + rng.standard_t(3, n)


def _autoregressive(n: int, rng: np.random.Generator, memory: float = 0.8) -> FloatArray:
    """Each point keeps `memory` of how far the one before was off; the deviation of the whole is 1."""
    steps = rng.normal(0.0, np.sqrt(1 - memory**2), n)
    steps[:1] /= np.sqrt(1 - memory**2)
    return _LEVEL + np.fromiter(accumulate(steps.tolist(), lambda last, step: memory * last + step), np.float64, n)


def _seasonal(n: int, rng: np.random.Generator) -> FloatArray:
    return _LEVEL + _DAILY_SWING * _day(n) + rng.normal(0.0, _NOISE_STD, n)


def _trending(n: int, rng: np.random.Generator) -> FloatArray:
    """Rises by some three deviations of its noise a day."""
    return _LEVEL + 0.002 * np.arange(n) + rng.normal(0.0, 1.0, n)


def _counts(n: int, rng: np.random.Generator) -> FloatArray:
    return rng.poisson(3.0, n).astype(np.float64)


def _binary(n: int, rng: np.random.Generator) -> FloatArray:
    """A lamp: 20 minutes on, 50 minutes off, on average."""
    return _on_off(n, rng, switch_on=0.02, switch_off=0.05)


def _heteroscedastic(n: int, rng: np.random.Generator) -> FloatArray:
    """Nine times as noisy at the top of the day as at the bottom."""
    return _LEVEL + _DAILY_SWING * _day(n) + _NOISE_STD * (1 + 0.8 * _day(n)) * rng.normal(0.0, 1.0, n)


def _skewed(n: int, rng: np.random.Generator) -> FloatArray:
    return rng.exponential(2.0, n)


def _bursty(n: int, rng: np.random.Generator) -> FloatArray:
    """0 but for bursts of some five points, one in a hundred minutes or so."""
    return _on_off(n, rng, switch_on=0.01, switch_off=0.2) * rng.exponential(5.0, n)


def _weekly(n: int, rng: np.random.Generator) -> FloatArray:
    """A daily swing that all but rests on Saturdays and Sundays."""
    is_workday = np.arange(n) // DAY_POINTS % 7 < _WORKDAYS
    return _LEVEL + _DAILY_SWING * np.where(is_workday, 1.0, 0.25) * (1 + _day(n)) + rng.normal(0.0, _NOISE_STD, n)


def _counter(n: int, rng: np.random.Generator) -> FloatArray:
    """Counts events since the last restart of a program, which comes every 500 points on average."""
    total = np.cumsum(rng.poisson(4.0, n))
    total_at_restart = np.maximum.accumulate(np.where(rng.random(n) < 1 / 500, total, 0))
    return (total - total_at_restart).astype(np.float64)


def _day(n: int) -> FloatArray:
    """A sine with the period of a day."""
    return np.asarray(np.sin(2 * np.pi * np.arange(n) / DAY_POINTS))


def _on_off(n: int, rng: np.random.Generator, switch_on: float, switch_off: float) -> FloatArray:
    """0 and 1 by a Markov chain that starts at 0: the probability, at each point, of switching."""
    lengths = rng.geometric(np.where(np.arange(n) % 2, switch_off, switch_on))
    switches = np.searchsorted(np.cumsum(lengths), np.arange(n), side="right")
    return (switches % 2).astype(np.float64)


def _normal_series(draw: Callable[[int, np.random.Generator], FloatArray], n: int, seed: int) -> Series:
    timestamps_s = _MONDAY_S + _INTERVAL_S * np.arange(n, dtype=np.float64)
    return Series(timestamps_s, draw(n, np.random.default_rng(seed)))


NORMAL_SERIES: Mapping[str, Callable[[int, int], Series]] = {
    "gaussian": partial(_normal_series, _gaussian),
    "heavy_tailed": partial(_normal_series, _heavy_tailed),
    "autoregressive": partial(_normal_series, _autoregressive),
    "seasonal": partial(_normal_series, _seasonal),
    "trending": partial(_normal_series, _trending),
    "counts": partial(_normal_series, _counts),
    "binary": partial(_normal_series, _binary),
    "heteroscedastic": partial(_normal_series, _heteroscedastic),
    "skewed": partial(_normal_series, _skewed),
    "bursty": partial(_normal_series, _bursty),
    "weekly": partial(_normal_series, _weekly),
    "counter": partial(_normal_series, _counter),
}
"""Makers of series in which nothing is wrong, by name: `n` points a minute apart, from a Monday 00:00 UTC, and a seed.

An alarm in one of them is a false one.
"""
