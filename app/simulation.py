"""Simulated series with planted anomalies, for trying out, tests and benchmarks: the same seed, the same series."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.series import Series

_DAY_S = 86_400
_LEVEL = 20.0
_DAILY_SWING = 4.0
_NOISE_STD = 0.6
_SPIKE_STDS = (12.0, 20.0)


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
