"""What period is found in a series, and where none is."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from app.detectors.periods import DAY_S, WEEK_S, find_period, find_period_points
from app.series import Series

N = 10_000
INDEX = np.arange(N)


def series(values: NDArray[np.float64], interval_s: float = 60.0) -> Series:
    return Series(1_705_000_020.0 + interval_s * np.arange(len(values)), np.asarray(values, dtype=np.float64))


def noise(seed: int = 1, n: int = N) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(n)


SHAPES = {
    "sine": np.sin(2 * np.pi * INDEX / 100),
    "square": np.where(INDEX % 100 < 30, 1.0, -1.0),
    "sawtooth": INDEX % 100 / 50.0,
    "pulses": np.where(INDEX % 100 < 4, 4.0, 0.0),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0])
def test_the_period_of_a_shape_is_found_in_spite_of_noise(shape: str, sigma: float) -> None:
    assert find_period(series(SHAPES[shape] + sigma * noise())) == pytest.approx(6000.0, rel=2e-3)


@pytest.mark.parametrize("period", [3.0, 7.0, 12.37, 24.0, 97.3, 333.0, 1440.0, 3000.0])
def test_short_long_and_odd_periods_are_found(period: float) -> None:
    found = find_period(series(np.sin(2 * np.pi * INDEX / period) + 0.3 * noise()))
    assert found == pytest.approx(60.0 * period, rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_a_day_of_minutes_is_found_in_five_days(seed: int) -> None:
    values = np.sin(2 * np.pi * np.arange(7200) / 1440) + noise(seed, 7200)
    assert find_period(series(values)) == DAY_S
    assert find_period_points(series(values)) == 1440


def test_three_clean_cycles_are_enough_and_two_are_not() -> None:
    def values(n: int) -> NDArray[np.float64]:
        return np.sin(2 * np.pi * np.arange(n) / 24) + 0.1 * noise(n=n)

    assert find_period(series(values(72), 3600.0)) == DAY_S
    assert find_period(series(values(48), 3600.0)) is None


def test_of_a_daily_and_a_weekly_season_the_daily_one_is_the_period() -> None:
    hour = np.arange(24 * 7 * 6)
    weekday = hour // 24 % 7 < 5
    values = np.where(weekday, 1.0, 0.3) * np.sin(2 * np.pi * hour / 24) + 0.7 * weekday + 0.2 * noise(n=len(hour))
    assert find_period(series(values, 3600.0)) == DAY_S


def test_days_of_the_week_are_a_period_of_seven_days() -> None:
    values = np.array([5.0, 5, 6, 5, 5, 1, 0])[np.arange(300) % 7] + 0.5 * noise(n=300)
    assert find_period(series(values, DAY_S)) == WEEK_S


def test_trend_random_walk_and_outliers_do_not_hide_a_period() -> None:
    season = np.sin(2 * np.pi * INDEX / 300) + 0.3 * noise()
    walk = 0.05 * np.cumsum(noise(2))
    spikes = np.where(INDEX % 97 == 0, 50.0 * noise(3), 0.0)
    for spoilt in (season + INDEX / 500, season + walk, season + spikes):
        assert find_period(series(spoilt)) == pytest.approx(18_000.0, rel=5e-3)


def test_gaps_and_irregular_times_do_not_hide_a_period() -> None:
    rng = np.random.default_rng(1)
    values = np.sin(2 * np.pi * INDEX / 100) + 0.5 * noise()
    kept = np.sort(rng.choice(N, 4000, replace=False))
    whole = series(values)
    assert find_period(Series(whole.timestamps_s[kept], values[kept])) == pytest.approx(6000.0, rel=2e-3)
    times = np.sort(rng.uniform(0, 600_000, 5000))
    irregular = Series(1_705_000_000.0 + times, np.sin(2 * np.pi * times / 6000) + 0.5 * noise(n=5000))
    assert find_period(irregular) == pytest.approx(6000.0, rel=2e-3)


NOTHING = {
    "noise": lambda rng, n: rng.standard_normal(n),
    "heavy tails": lambda rng, n: rng.standard_t(2, n),
    "random walk": lambda rng, n: np.cumsum(rng.standard_normal(n)),
    "trend": lambda rng, n: 0.01 * np.arange(n) + rng.standard_normal(n),
    "parabola": lambda rng, n: (np.arange(n) / 1e3) ** 2 + 0.01 * rng.standard_normal(n),
    "toggling": lambda rng, n: np.cumsum(rng.random(n) < 0.05) % 2,
}


@pytest.mark.parametrize("kind", NOTHING)
def test_what_does_not_repeat_itself_has_no_period(kind: str) -> None:
    lengths = np.repeat([50, 200, 1000, 5000], 15).tolist()
    found = [find_period(series(NOTHING[kind](np.random.default_rng(i), n))) for i, n in enumerate(lengths)]
    assert sum(period is not None for period in found) <= 2


@pytest.mark.parametrize(
    "values",
    [INDEX, INDEX**2, np.exp(INDEX / 2000), np.log1p(INDEX), INDEX > 4000, np.full(N, 7.0), [1.0], [1.0, 2.0] * 3, []],
    ids=["line", "parabola", "exponential", "logarithm", "step", "constant", "one", "six", "none"],
)
def test_clean_curves_and_very_short_series_have_no_period(values: NDArray[np.float64]) -> None:
    assert find_period(series(values)) is None
    assert find_period_points(series(values)) is None


@pytest.mark.parametrize("level", [1e300, 1e-300])
def test_huge_and_tiny_values_have_the_same_period(level: float) -> None:
    assert find_period(series(level * (2.0 + SHAPES["sine"] + 0.3 * noise()))) == pytest.approx(6000.0, rel=2e-3)


def test_it_is_quick() -> None:
    subject = series(SHAPES["sine"] + noise())
    costs = []
    for _ in range(10):
        start = time.process_time()
        find_period(subject)
        costs.append(time.process_time() - start)
    assert min(costs) < 0.1, "it takes 15 ms on the machine that it was written on"
