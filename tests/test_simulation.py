"""What simulated series look like: the normal ones, and each kind of anomaly planted in them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from app.injection import ANOMALY_KINDS, MAX_SHARE, AnomalyKind, inject, noise_std, plant
from app.series import Series
from app.simulation import DAY_POINTS, NORMAL_SERIES, simulate_sensor

N = 2400
PERIOD = 120
START, LENGTH = 1000, 240
STRETCH = slice(START, START + LENGTH)
INDEX = np.arange(N)
SEASON = 4 * np.sin(2 * np.pi * INDEX / PERIOD)
NOISE = np.random.default_rng(3).normal(0.0, 0.5, N)


def series(values: NDArray[np.float64]) -> Series:
    return Series(1_705_000_020.0 + 60.0 * np.arange(len(values)), np.asarray(values, dtype=np.float64))


SENSOR = series(20 + SEASON + NOISE)
SIGMA = noise_std(SENSOR.values, PERIOD)


def injected(kind: AnomalyKind, size: float = 5.0, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return inject(SENSOR, kind, size, start=START, length=LENGTH, period_points=PERIOD, rng=rng).values


def moved(kind: AnomalyKind, size: float = 5.0, seed: int = 0) -> NDArray[np.float64]:
    """How far from the normal values, in sigmas."""
    return (injected(kind, size, seed) - SENSOR.values)[STRETCH] / SIGMA


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where each run of True begins and where it has ended."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


# --- one sigma ---


@pytest.mark.parametrize("period_points", [None, PERIOD, 5 * N])
def test_sigma_is_the_noise_and_neither_the_season_nor_the_trend(period_points: int | None) -> None:
    values = SENSOR.values + 0.05 * INDEX
    assert noise_std(values, period_points) == pytest.approx(0.5, rel=0.15)


def test_a_few_anomalies_leave_sigma_as_it_is() -> None:
    planted = plant(SENSOR, ANOMALY_KINDS, 20.0, share=0.04, period_points=PERIOD)
    assert noise_std(planted.series.values, PERIOD) == pytest.approx(SIGMA, rel=0.25)


def test_sigma_of_autocorrelated_noise_without_a_period_is_that_of_its_steps() -> None:
    assert noise_std(NORMAL_SERIES["autoregressive"](20_000, 1).values) == pytest.approx(np.sqrt(0.2), rel=0.05)


def test_sigma_of_a_smooth_season_without_noise_is_a_share_of_its_swing() -> None:
    smooth = np.sin(2 * np.pi * np.arange(5 * DAY_POINTS) / DAY_POINTS)
    for period_points in (None, DAY_POINTS):
        assert noise_std(smooth, period_points) == pytest.approx(0.01 * smooth.std(), rel=1e-6)


def test_sigma_of_a_series_that_mostly_stands_still_is_its_spread() -> None:
    values = NORMAL_SERIES["binary"](5000, 1).values
    assert noise_std(values) == values.std()


@pytest.mark.parametrize(("level", "sigma"), [(20.0, 0.2), (-20.0, 0.2), (0.1, 0.001), (0.0, 1.0)])
def test_a_constant_series_has_a_sigma_too(level: float, sigma: float) -> None:
    assert noise_std(np.full(100, level)) == pytest.approx(sigma)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_short_series_has_a_sigma(n: int) -> None:
    assert noise_std(np.arange(float(n)), 7) > 0


# --- what each kind does ---


def test_a_spike_rises_and_a_dip_falls_by_its_size() -> None:
    np.testing.assert_allclose(moved("spike", 5.0), 5.0)
    np.testing.assert_allclose(moved("dip", 5.0), -5.0)


def test_a_level_shift_moves_the_mean_by_its_size_up_or_down() -> None:
    shifts = {round(float(moved("level_shift", 5.0, seed).mean()), 6) for seed in range(10)}
    assert shifts == {5.0, -5.0}


def test_a_drift_runs_away_in_equal_steps_up_or_down() -> None:
    drifts = [moved("drift", 5.0, seed) for seed in range(10)]
    assert {round(float(drift[-1]), 6) for drift in drifts} == {5.0, -5.0}
    np.testing.assert_allclose(np.abs(np.diff(drifts[0], prepend=0.0)), 5.0 / LENGTH)


def test_a_change_of_variance_adds_noise_of_its_size_about_the_same_mean() -> None:
    added = moved("variance_change", 5.0)
    assert added.std() == pytest.approx(5.0, rel=0.15)
    assert abs(added.mean()) < 1.0


def test_a_flatline_repeats_the_value_before_it() -> None:
    assert set(injected("flatline")[STRETCH]) == {SENSOR.values[START - 1]}


def test_a_flatline_from_the_start_repeats_the_first_value() -> None:
    flat = inject(SENSOR, "flatline", 5.0, start=0, length=9, period_points=None, rng=np.random.default_rng())
    assert set(flat.values[:9]) == {SENSOR.values[0]}


@pytest.mark.parametrize("slope", [0.0, 0.02, -0.02])
def test_a_missing_season_lacks_the_swing_and_keeps_level_trend_and_noise(slope: float) -> None:
    trending = series(SENSOR.values + slope * INDEX)
    rng = np.random.default_rng(0)
    missing = inject(trending, "missing_season", 5.0, start=START, length=LENGTH, period_points=PERIOD, rng=rng)
    left = (missing.values - 20 - slope * INDEX - NOISE)[STRETCH]
    assert np.abs(left).max() < 1.0
    assert left.std() < 0.4
    assert abs(left.mean()) < 0.1


def test_the_size_of_a_flatline_and_of_a_missing_season_says_nothing() -> None:
    for kind in ("flatline", "missing_season"):
        np.testing.assert_array_equal(injected(kind, 1.0), injected(kind, 10.0))


def test_a_shape_is_a_swell_of_another_wave_and_as_high_as_its_size() -> None:
    added = moved("shape", 5.0)
    assert np.abs(added).max() == pytest.approx(5.0)
    assert np.abs(added[[0, -1]]).max() < 0.1
    waves = np.abs(np.fft.rfft(added)).argmax()
    assert waves == pytest.approx(2.5 * LENGTH / PERIOD, abs=1)


@pytest.mark.parametrize("kind", ANOMALY_KINDS)
def test_the_points_around_an_anomaly_stay_as_they_are(kind: AnomalyKind) -> None:
    outside = np.ones(N, dtype=np.bool_)
    outside[STRETCH] = False
    values = injected(kind)
    np.testing.assert_array_equal(values[outside], SENSOR.values[outside])
    assert np.all(values[STRETCH][1:] != SENSOR.values[STRETCH][1:])


@pytest.mark.parametrize("kind", ANOMALY_KINDS)
def test_the_series_that_is_given_stays_as_it_is(kind: AnomalyKind) -> None:
    before = SENSOR.values.copy()
    planted = inject(SENSOR, kind, 5.0, start=3, length=50, period_points=PERIOD, rng=np.random.default_rng())
    assert not np.shares_memory(planted.values, SENSOR.values)
    np.testing.assert_array_equal(SENSOR.values, before)
    np.testing.assert_array_equal(planted.timestamps_s, SENSOR.timestamps_s)


@pytest.mark.parametrize("kind", ANOMALY_KINDS)
def test_the_same_random_numbers_give_the_same_anomaly(kind: AnomalyKind) -> None:
    np.testing.assert_array_equal(injected(kind, seed=7), injected(kind, seed=7))


@pytest.mark.parametrize("kind", ANOMALY_KINDS)
@pytest.mark.parametrize("length", [1, 2, 40])
@pytest.mark.parametrize("level", [0.0, 20.0])
def test_a_constant_series_takes_every_kind(kind: AnomalyKind, length: int, level: float) -> None:
    constant = series(np.full(40, level))
    rng = np.random.default_rng(1)
    values = inject(constant, kind, 3.0, start=40 - length, length=length, period_points=10, rng=rng).values
    assert np.all(np.isfinite(values))
    if kind not in {"flatline", "missing_season"}:
        assert np.any(values != level)


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, 0), (N, 1), (N - 1, 2), (5, -2)])
def test_points_outside_the_series_are_refused(start: int, length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} points from {start} do not lie"):
        inject(SENSOR, "spike", 5.0, start=start, length=length, period_points=None, rng=np.random.default_rng())


@pytest.mark.parametrize("period_points", [None, N // 2 + 1])
def test_a_season_that_is_not_there_cannot_be_missing(period_points: int | None) -> None:
    with pytest.raises(ValueError, match="give period_points"):
        plant(SENSOR, ["missing_season"], 5.0, period_points=period_points)


# --- several ---


@pytest.mark.parametrize("kind", ANOMALY_KINDS)
def test_the_mask_names_the_points_that_differ(kind: AnomalyKind) -> None:
    planted = plant(SENSOR, [kind], 5.0, seed=4, count=3, period_points=PERIOD)
    differs = planted.series.values != SENSOR.values
    assert not np.any(differs & ~planted.is_anomaly)
    assert differs.sum() >= 0.98 * planted.is_anomaly.sum()
    np.testing.assert_array_equal(planted.series.timestamps_s, SENSOR.timestamps_s)


@pytest.mark.parametrize("kinds", [ANOMALY_KINDS, ["spike"], ["spike", "flatline"], ["drift"]])
@pytest.mark.parametrize("count", [None, 1, 12, 200, 10_000])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.9])
def test_anomalies_stand_apart_and_are_few(kinds: list[AnomalyKind], count: int | None, share: float) -> None:
    planted = plant(SENSOR, kinds, 5.0, seed=5, count=count, share=share, period_points=PERIOD)
    points = int(planted.is_anomaly.sum())
    stretches = runs(planted.is_anomaly)
    assert 0 < points <= MAX_SHARE * N
    if count is None:
        assert points <= share * N
    elif count <= 200:
        assert len(stretches) == count
    even_share = (N - points) / len(stretches)
    edges = [0, *(edge for stretch in stretches for edge in stretch), N]
    normal_lengths = np.diff(edges)[::2]
    assert normal_lengths.min() >= 0.25 * even_share - 1
    assert normal_lengths[1:-1].max(initial=0) <= 1.5 * even_share + 1


def test_a_share_is_used_up() -> None:
    planted = plant(SENSOR, ["spike", "dip"], 5.0, share=0.1)
    assert planted.is_anomaly.mean() == pytest.approx(0.1, abs=0.002)


def test_kinds_take_turns() -> None:
    planted = plant(SENSOR, ["spike", "dip"], 5.0, count=6)
    moves = planted.series.values - SENSOR.values
    assert [np.sign(moves[start]) for start, _ in runs(planted.is_anomaly)] == [1, -1, 1, -1, 1, -1]


def test_lengths_suit_the_kind() -> None:
    spikes = runs(plant(SENSOR, ["spike"], 5.0, count=30).is_anomaly)
    assert {stop - start for start, stop in spikes} == {1, 2, 3}
    seasons = runs(plant(SENSOR, ["missing_season"], 5.0, count=2, period_points=PERIOD).is_anomaly)
    assert {stop - start for start, stop in seasons} == {PERIOD}
    shifts = runs(plant(SENSOR, ["level_shift"], 5.0, count=4, period_points=PERIOD).is_anomaly)
    assert all(PERIOD / 4 <= stop - start <= 3 * PERIOD / 4 for start, stop in shifts)


def test_the_seed_decides() -> None:
    first, again, other = (plant(SENSOR, ANOMALY_KINDS, 5.0, seed=seed, period_points=PERIOD) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.series.values, again.series.values)
    np.testing.assert_array_equal(first.is_anomaly, again.is_anomaly)
    assert np.any(first.is_anomaly != other.is_anomaly)


def test_planting_leaves_the_series_that_is_given_as_it_is() -> None:
    before = SENSOR.values.copy()
    planted = plant(SENSOR, ANOMALY_KINDS, 5.0, period_points=PERIOD)
    np.testing.assert_array_equal(SENSOR.values, before)
    assert not np.shares_memory(planted.series.values, SENSOR.values)


@pytest.mark.parametrize("n", range(12))
def test_a_series_of_less_than_seven_points_gets_no_anomaly(n: int) -> None:
    planted = plant(series(np.arange(float(n))), ["spike", "drift"], 5.0, count=1)
    assert planted.is_anomaly.sum() == (1 if n >= 7 else 0)
    assert len(planted.series) == n


@pytest.mark.parametrize(("kinds", "count"), [([], None), ([], 3), (["spike"], 0)])
def test_nothing_to_plant_leaves_a_normal_series(kinds: list[AnomalyKind], count: int | None) -> None:
    planted = plant(SENSOR, kinds, 5.0, count=count)
    assert not planted.is_anomaly.any()
    np.testing.assert_array_equal(planted.series.values, SENSOR.values)


# --- normal series ---


@pytest.mark.parametrize("name", NORMAL_SERIES)
@pytest.mark.parametrize("n", [1, 2, 500])
def test_normal_series_have_n_finite_points_a_minute_apart(name: str, n: int) -> None:
    made = NORMAL_SERIES[name](n, 1)
    assert made.values.shape == made.timestamps_s.shape == (n,)
    assert made.values.dtype == np.float64
    assert np.all(np.isfinite(made.values))
    assert np.all(np.diff(made.timestamps_s) == 60.0)


@pytest.mark.parametrize("name", NORMAL_SERIES)
def test_the_seed_decides_on_a_normal_series(name: str) -> None:
    first, again, other = (NORMAL_SERIES[name](500, seed).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


@pytest.mark.parametrize("name", NORMAL_SERIES)
def test_normal_series_take_every_kind_of_anomaly(name: str) -> None:
    planted = plant(NORMAL_SERIES[name](3 * DAY_POINTS, 1), ANOMALY_KINDS, 5.0, share=0.1, period_points=DAY_POINTS)
    assert np.all(np.isfinite(planted.series.values))
    assert len(runs(planted.is_anomaly)) >= len(ANOMALY_KINDS)


def test_normal_series_are_what_they_are_called() -> None:
    made = {name: make(14 * DAY_POINTS, 3).values for name, make in NORMAL_SERIES.items()}
    day = np.arange(14 * DAY_POINTS) % DAY_POINTS
    assert made["gaussian"].std() == pytest.approx(1.0, rel=0.05)
    assert np.abs(made["heavy_tailed"] - 20).max() > 10
    assert np.corrcoef(made["autoregressive"][1:], made["autoregressive"][:-1])[0, 1] == pytest.approx(0.8, abs=0.02)
    assert made["seasonal"][day == 360].mean() - made["seasonal"][day == 1080].mean() == pytest.approx(8.0, abs=0.8)
    assert made["trending"][-100:].mean() > made["trending"][:100].mean() + 30
    assert set(made["counts"]) >= {0.0, 1.0, 2.0, 3.0, 9.0}
    assert set(made["binary"]) == {0.0, 1.0}
    assert made["binary"].mean() == pytest.approx(2 / 7, abs=0.05)
    steps = np.diff(made["heteroscedastic"], append=20.0)
    assert steps[np.abs(day - 360) < 60].std() > 6 * steps[np.abs(day - 1080) < 60].std()
    assert made["skewed"].mean() > 1.3 * np.median(made["skewed"])
    assert 0.9 < (made["bursty"] == 0).mean() < 0.98
    assert np.all(np.diff(made["counter"]) % 1 == 0)
    assert 20 <= (np.diff(made["counter"]) < 0).sum() <= 80


def test_saturday_and_sunday_differ_from_the_days_before() -> None:
    made = NORMAL_SERIES["weekly"](14 * DAY_POINTS, 1)
    swings = np.ptp(made.values.reshape(14, DAY_POINTS), axis=1)
    weekday = (made.timestamps_s[::DAY_POINTS] // 86_400 + 3) % 7
    assert swings[weekday >= 5].max() < swings[weekday < 5].min() - 2


# --- a sensor with spikes and dips ---


def test_the_spikes_of_a_sensor_are_where_the_mask_says() -> None:
    normal, spiked = simulate_sensor(1000, seed=2), simulate_sensor(1000, seed=2, anomalies=9)
    assert spiked.is_anomaly.sum() == 9
    np.testing.assert_array_equal(normal.series.values != spiked.series.values, spiked.is_anomaly)
