"""The quality of training data: what is found in series in which it is, and not in those in which it is not."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from app.quality import SHOWN, Quality, assess_quality
from app.series import Series
from app.simulation import NORMAL_SERIES
from app.unit_jumps import KNOWN_FACTORS, find_unit_jumps

START_S = 1_700_000_000.0
DAY = 1440
FACTORS = (10.0, 60.0, 1000.0, 1.8, 0.1, 0.001, 100.0, 3.0)


def series(values: ArrayLike, interval_s: float = 60.0) -> Series:
    array = np.asarray(values, dtype=np.float64)
    return Series(START_S + interval_s * np.arange(len(array)), array)


def without(whole: Series, *stretches: tuple[int, int]) -> Series:
    """The series without the points first .. last - 1 of each stretch."""
    kept = np.ones(len(whole), dtype=bool)
    for first, last in stretches:
        kept[first:last] = False
    return Series(whole.timestamps_s[kept], whole.values[kept])


def noise(n: int = 2000, seed: int = 0) -> np.ndarray:
    return 20.0 + np.random.default_rng(seed).normal(0, 0.4, n)


def daily(n: int = 5 * DAY, seed: int = 0) -> np.ndarray:
    return noise(n, seed) + 3.0 * np.sin(2 * np.pi * np.arange(n) / DAY)


# ---- time ------------------------------------------------------------------------------------------------------


def test_a_sound_series_has_no_findings() -> None:
    quality = assess_quality(series(daily()))
    assert (quality.points, quality.interval_s, quality.is_regular, quality.off_time_share) == (7200, 60.0, True, 0.0)
    assert (quality.bunched_points, quality.gaps.count, quality.gaps.first, quality.gaps.longest_s) == (0, 0, (), 0.0)
    assert (quality.nature, quality.longest_run_points) == ("numbers", 1)
    assert (quality.stuck.count, quality.outliers.count, quality.unit_jumps) == (0, 0, ())


def test_gaps_are_counted_and_the_first_ones_named() -> None:
    stretches = [(first, first + 1 + first // 100) for first in range(100, 1000, 100)]
    gaps = assess_quality(without(series(noise(1000)), *stretches)).gaps
    missing = sum(last - first for first, last in stretches)
    assert (gaps.count, gaps.missing_points) == (9, missing)
    assert gaps.missing_share == pytest.approx(missing / 1000)
    assert gaps.longest_s == 60.0 * 11
    assert len(gaps.first) == SHOWN
    assert gaps.first[0] == (START_S + 60 * 99, START_S + 60 * 102, 2)


def test_points_that_come_a_little_early_or_late_are_regular_and_none_is_missing() -> None:
    late = np.random.default_rng(0).uniform(-2, 2, 2000)
    jittered = Series(series(noise()).timestamps_s + late, noise())
    quality = assess_quality(jittered)
    assert quality.is_regular
    assert quality.gaps.count == 0
    assert assess_quality(without(jittered, (500, 510))).gaps.missing_points == 10


def test_events_at_random_times_are_irregular_and_only_a_long_silence_is_a_gap() -> None:
    waits = np.random.default_rng(1).exponential(60.0, 5000)
    quality = assess_quality(Series(START_S + np.cumsum(waits), noise(5000)))
    assert not quality.is_regular
    assert quality.off_time_share > 0.5
    assert quality.gaps.count == 0
    waits[2500] = 5000.0
    assert assess_quality(Series(START_S + np.cumsum(waits), noise(5000))).gaps.count == 1


def test_points_sent_twice_are_counted() -> None:
    times = series(noise()).timestamps_s.copy()
    times[500:600:10] = times[499:599:10] + 0.05
    assert assess_quality(Series(times, noise())).bunched_points == 10


@pytest.mark.parametrize("n", [1, 2, 3, 5, 12, 19, 20, 40])
def test_however_short_a_series_is_it_is_assessed(n: int) -> None:
    quality = assess_quality(series(noise(n)))
    assert quality.points == n
    assert quality.interval_s == (None if n == 1 else 60.0)
    assert (quality.gaps.count, quality.stuck.count, quality.outliers.count) == (0, 0, 0)


# ---- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "nature"),
    [
        ([3.0, 3.0, 3.0], "constant"),
        ([0.0, 1.0, 1.0], "binary"),
        ([-2.5, 7.0, -2.5], "binary"),
        ([0.0, 1.0, 2.0], "integers"),
        ([0.0, 1.0, 2.5], "numbers"),
        ([1e300, -1e300, 1.5], "numbers"),
    ],
)
def test_the_nature_of_values_is_told(values: list[float], nature: str) -> None:
    assert assess_quality(series(values)).nature == nature


def test_stuck_values_are_found_with_when_and_at_what() -> None:
    values = noise()
    values[300:340], values[1200:1212] = values[300], 21.25
    stuck = assess_quality(series(values)).stuck
    assert (stuck.count, stuck.points) == (2, 52)
    assert stuck.longest[0] == (START_S + 60 * 300, START_S + 60 * 339, 40, values[300])
    assert stuck.longest[1].value == 21.25


def test_a_series_that_is_stuck_for_a_fifth_of_the_time_says_so() -> None:
    values = noise()
    values[1600:] = values[1600]
    assert assess_quality(series(values)).stuck.points == 400


@pytest.mark.parametrize(
    "values",
    [
        np.full(500, 3.0),
        np.random.default_rng(0).integers(0, 2, 5000),
        np.random.default_rng(0).poisson(0.1, 5000),
        np.round(20 + 3 * np.sin(np.arange(10 * DAY) * 2 * np.pi / DAY), 1),
        np.repeat(np.random.default_rng(0).normal(size=300), 20),
        np.tile(np.r_[np.zeros(500), 1 + np.random.default_rng(0).random(500)], 6),
    ],
    ids=["constant", "coins", "mostly zeros", "rounded season", "steps of equal length", "nights at zero"],
)
def test_equal_values_that_are_usual_in_a_series_are_not_stuck(values: np.ndarray) -> None:
    assert assess_quality(series(values)).stuck.count == 0


def test_outliers_are_counted_and_the_worst_named() -> None:
    values = daily()
    places = np.arange(700, 7200, 700)
    values[places] += np.where(np.arange(len(places)) % 2, 8.0, -8.0)
    values[2100] += 1000.0
    outliers = assess_quality(series(values)).outliers
    assert outliers.count == len(places)
    assert len(outliers.worst) == SHOWN
    assert outliers.worst[0].timestamp_s == START_S + 60 * 2100
    assert outliers.worst[0].value == values[2100]
    assert outliers.worst[0].deviation > 1000 > outliers.worst[1].deviation > 10


def test_a_dropout_of_four_points_is_four_outliers() -> None:
    values = daily()
    values[3000:3004] = 0.0
    assert assess_quality(series(values)).outliers.count == 4


def with_a_step(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(values)) < len(values) // 2, values, values + 50.0)


def with_a_spike_an_hour(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(values)) % 60, values, values + 50.0)


@pytest.mark.parametrize("changed", [with_a_step, with_a_spike_an_hour])
def test_steps_and_spikes_that_come_back_are_no_outliers(changed: Callable[[np.ndarray], np.ndarray]) -> None:
    assert assess_quality(series(changed(daily()))).outliers.count == 0


# ---- changes of unit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("values", [noise(6000), daily(6000), np.random.default_rng(0).poisson(40, 6000)])
@pytest.mark.parametrize("period_points", [None, DAY])
def test_a_stretch_in_another_unit_is_found(values: np.ndarray, factor: float, period_points: int | None) -> None:
    changed = values.astype(float)
    changed[3000:3700] *= factor
    [jump] = find_unit_jumps(series(changed), period_points)
    assert jump.factor == pytest.approx(factor, rel=0.1)
    assert not jump.is_at_end
    assert jump.first_timestamp_s == pytest.approx(START_S + 60 * 3000, abs=3 * 60)
    assert jump.last_timestamp_s == pytest.approx(START_S + 60 * 3699, abs=3 * 60)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("n", [400, 6000])
def test_a_unit_that_stays_changed_is_found(factor: float, n: int) -> None:
    changed = daily(n)
    changed[n // 2 :] *= factor
    [jump] = find_unit_jumps(series(changed))
    assert jump.factor == pytest.approx(factor, rel=0.1)
    assert jump.is_at_end
    assert jump.last_timestamp_s == START_S + 60 * (n - 1)


@pytest.mark.parametrize("factor", [10.0, 1000.0])
def test_a_large_factor_is_found_in_40_points(factor: float) -> None:
    changed = daily()
    changed[4000:4040] *= factor
    assert [jump.factor for jump in find_unit_jumps(series(changed))] == [factor]


def test_noise_about_zero_in_another_unit_is_found_too() -> None:
    changed = np.random.default_rng(0).normal(size=6000)
    changed[3000:3700] *= 1000
    assert [jump.factor for jump in find_unit_jumps(series(changed))] == [pytest.approx(1000, rel=0.2)]


def test_a_factor_near_to_a_known_one_is_that_one() -> None:
    for known in KNOWN_FACTORS:
        changed = daily()
        changed[3000:] *= known
        assert [jump.factor for jump in find_unit_jumps(series(changed))] == [known]


def multiplicative_season(n: int) -> np.ndarray:
    return np.exp(2 * np.sin(2 * np.pi * np.arange(n) / DAY)) * (1 + np.random.default_rng(0).normal(0, 0.1, n))


def nights_and_days(n: int) -> np.ndarray:
    return np.where(np.arange(n) % DAY < DAY // 3, 10.0, 100.0) * (1 + np.random.default_rng(0).normal(0, 0.1, n))


def shifted(n: int) -> np.ndarray:
    return daily(n) + np.where(np.arange(n) < n // 2, 0.0, 200.0)


def with_spikes(n: int) -> np.ndarray:
    values = daily(n)
    values[np.random.default_rng(0).integers(0, n, n // 100)] *= 100
    return values


def growing(n: int) -> np.ndarray:
    return np.exp(np.arange(n) / (n / 5)) * (1 + np.random.default_rng(0).normal(0, 0.05, n))


def louder(n: int) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=n)
    values[n // 2 : n // 2 + n // 10] *= 4
    return values


@pytest.mark.parametrize(
    "make", [noise, daily, multiplicative_season, nights_and_days, shifted, with_spikes, growing, louder]
)
def test_what_is_no_change_of_unit_is_none(make: Callable[[int], np.ndarray]) -> None:
    for n in (300, 3 * DAY, 8 * DAY):
        assert find_unit_jumps(series(make(n)), DAY) == ()
    assert find_unit_jumps(series(make(8 * DAY))) == ()


@pytest.mark.parametrize("name", NORMAL_SERIES)
def test_normal_series_are_neither_stuck_nor_in_other_units(name: str) -> None:
    for n in (60, 600, 6000):
        for seed in range(4):
            quality = assess_quality(NORMAL_SERIES[name](n, seed))
            assert (quality.gaps.count, quality.is_regular) == (0, True)
            assert (quality.stuck.count, quality.unit_jumps) == (0, ())
            assert name in {"heavy_tailed", "skewed", "bursty"} or quality.outliers.count == 0


# ---- all of it -------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0, -1e-320]), min_size=1),
    st.data(),
)
def test_whatever_the_values_are_nothing_breaks(values: list[float], data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.floats(1e-3, 1e9), min_size=len(values), max_size=len(values)))
    quality = assess_quality(
        Series(np.cumsum(steps), np.array(values)), period_points=data.draw(st.none() | st.just(4))
    )
    assert isinstance(quality, Quality)
    assert 0 <= quality.gaps.missing_share <= 1
    assert quality.longest_run_points <= len(values)


def test_extreme_values_of_a_long_series_break_nothing() -> None:
    values = np.random.default_rng(0).normal(size=3000) * 1e307
    values[1000:1100] = 1e-310
    assert isinstance(assess_quality(series(values), 100), Quality)


def test_a_hundred_thousand_points_are_assessed_in_no_time() -> None:
    history = series(daily(100_000))
    taken_s = []
    for _ in range(5):
        started = time.process_time()
        assess_quality(history, DAY)
        taken_s.append(time.process_time() - started)
    assert min(taken_s) < 0.05, "15 ms, with room for a slow machine"
