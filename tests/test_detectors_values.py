"""What the detectors that expect a value find, what they leave in peace, and odd but normal kinds of series."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import NDArray

from app.detectors import find_detector, kernels_values
from app.detectors.base import KINDS, Detector, Verdicts
from app.detectors.judging import rate_of_weekly
from app.detectors.periods import DAY_S, WEEK_S
from app.detectors.quantiles import quantiles
from app.series import Series

NAMES = ("ewma", "seasonal", "autoregressive", "changepoint")
START_S = 1_704_672_030.0  # a Monday, half a minute past midnight
HISTORY, NEW = 4000, 8000
BUDGET = 0.01

Rng = np.random.Generator
Values = NDArray[np.float64]


def series(values: Values, first: int = 0, interval_s: float = 60.0) -> Series:
    return Series(START_S + interval_s * (first + np.arange(len(values))), np.asarray(values, dtype=np.float64))


def fit(name: str, values: Values, interval_s: float = 60.0, **params: object) -> Detector:
    kind = find_detector(name)
    return kind.fit(series(values, 0, interval_s), kind.Params(**params))  # type: ignore[arg-type]


def kinds(verdicts: Verdicts) -> list[str | None]:
    return [KINDS[index] for index in verdicts.kind.tolist()]


def noise(n: int, seed: int = 1) -> Values:
    return np.random.default_rng(seed).standard_normal(n)


def autoregression(rng: Rng, n: int, phi: float = 0.8) -> Values:
    values = rng.standard_normal(n)
    for i in range(1, n):
        values[i] += phi * values[i - 1]
    return values


def daily(index: Values, interval_s: float) -> Values:
    day = 2 * np.pi * index * interval_s / DAY_S
    return 3.0 * np.sin(day) + 1.5 * np.sin(2 * day + 1.0)


def daily_and_weekly(rng: Rng, n: int) -> Values:
    index = np.arange(n)
    weekend = index * 900.0 // DAY_S % 7 >= 5
    return np.where(weekend, 0.4, 1.0) * daily(index, 900.0) + 0.5 * rng.standard_normal(n)


NORMAL: dict[str, Callable[[Rng, int], Values]] = {
    "gaussian": lambda rng, n: rng.standard_normal(n),
    "heavy tails": lambda rng, n: rng.standard_t(3, n),
    "autoregressive": autoregression,
    "season": lambda rng, n: 3.0 * np.sin(2 * np.pi * np.arange(n) / 200) + rng.standard_normal(n),
    "trend": lambda rng, n: 0.002 * np.arange(n) + rng.standard_normal(n),
    "wandering": lambda rng, n: 0.05 * np.cumsum(rng.standard_normal(n)) + rng.standard_normal(n),
    "skewed": lambda rng, n: rng.exponential(size=n),
    "variance in waves": lambda rng, n: rng.standard_normal(n) * np.exp(0.8 * np.sin(2 * np.pi * np.arange(n) / 777)),
    "daily and weekly": daily_and_weekly,
}


@pytest.mark.parametrize("kind", NORMAL)
@pytest.mark.parametrize("name", NAMES)
def test_false_alarms_keep_to_their_budget_on_normal_data(name: str, kind: str) -> None:
    if (name, kind) == ("changepoint", "daily and weekly"):
        pytest.skip("forty days are too few for what stretches of days and weekends are usually like")
    rates = []
    for seed in range(3):
        values = NORMAL[kind](np.random.default_rng(seed), HISTORY + NEW)
        detector = fit(name, values[:HISTORY], 900.0, false_alarm_rate=BUDGET)
        rates.append(detector.score(series(values[HISTORY:], HISTORY, 900.0)).is_anomaly.mean())
    assert BUDGET / 2 <= np.mean(rates) <= BUDGET * 2, f"each {rates}"


@pytest.mark.parametrize("name", NAMES)
def test_at_irregular_times_a_point_alone_gets_the_verdict_that_it_gets_among_others(name: str) -> None:
    rng = np.random.default_rng(5)
    times = START_S + np.cumsum(rng.exponential(60.0, 3000))
    values = np.round(np.sin(2 * np.pi * times / 6000) + 0.05 * np.cumsum(rng.standard_normal(3000)) / 5, 2)
    kind = find_detector(name)
    detector = kind.fit(Series(times[:2000], values[:2000]), kind.Params(false_alarm_rate=0.05))
    bulk = detector.score(Series(times[2000:], values[2000:]))
    assert bulk.is_anomaly.any()
    for i in range(0, 1000, 13):
        first = 2000 + i - detector.context_points
        context = Series(times[first : 2000 + i], values[first : 2000 + i])
        one = detector.score_one(float(times[2000 + i]), float(values[2000 + i]), context)
        assert [*one[:-1], KINDS.index(one.kind)] == [getattr(bulk, field.name)[i] for field in fields(bulk)]


# ---- odd but normal ----------------------------------------------------------------------------------------


def counter_with_resets(rng: Rng, n: int) -> Values:
    return np.cumsum(rng.poisson(2, n)) % 997.0


ODD: dict[str, Callable[[Rng, int], Values]] = {
    "constant": lambda _rng, n: np.full(n, 42.0),
    "nearly constant": lambda rng, n: np.where(rng.random(n) < 0.01, 5.1, 5.0),
    "lamp": lambda rng, n: np.cumsum(rng.random(n) < 0.02) % 2.0,
    "counts": lambda rng, n: rng.poisson(3, n).astype(np.float64),
    "rare events": lambda rng, n: (rng.random(n) < 0.003) * 1.0,
    "rounded": lambda rng, n: np.round(0.4 * rng.standard_normal(n)),
    "counter with resets": counter_with_resets,
    "counting up": lambda rng, n: np.cumsum(rng.poisson(2, n)).astype(np.float64),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", NAMES)
def test_odd_but_normal_series_raise_no_flood_of_alarms(name: str, kind: str) -> None:
    values = ODD[kind](np.random.default_rng(2), 2 * HISTORY)
    verdicts = fit(name, values[:HISTORY]).score(series(values[HISTORY:], HISTORY))
    assert np.all(np.isfinite(verdicts.score))
    assert verdicts.is_anomaly.mean() <= 0.01


STRANGE = {"constant": 43.0, "nearly constant": 8.0, "counts": 30.0, "rounded": 6.0, "counter with resets": 1e4}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("name", NAMES)
def test_a_strange_value_in_an_odd_series_is_found(name: str, kind: str) -> None:
    values = ODD[kind](np.random.default_rng(3), HISTORY + 50)
    values[HISTORY + 40] = STRANGE[kind]
    verdicts = fit(name, values[:HISTORY]).score(series(values[HISTORY:], HISTORY))
    assert verdicts.is_anomaly[40]
    assert kinds(verdicts)[40] == "spike"


@pytest.mark.parametrize("name", ["ewma", "autoregressive"])
def test_a_lamp_that_is_half_on_again_as_much_as_on_is_found(name: str) -> None:
    values = ODD["lamp"](np.random.default_rng(3), HISTORY + 50)
    values[HISTORY:] = 0.0
    values[HISTORY + 40] = 2.0
    assert fit(name, values[:HISTORY]).score(series(values[HISTORY:], HISTORY)).is_anomaly[40]


@pytest.mark.parametrize("name", NAMES)
def test_a_fan_that_stalls_is_found_at_once(name: str) -> None:
    values = 1200.0 + 15.0 * noise(HISTORY + 100)
    values[HISTORY + 50 :] = 0.0
    verdicts = fit(name, values[:HISTORY]).score(series(values[HISTORY:], HISTORY))
    assert verdicts.is_anomaly[50]
    assert kinds(verdicts)[50] == "dip"
    if name == "changepoint":
        assert verdicts.is_anomaly[50:].all()
        assert kinds(verdicts)[99] == "flatline"


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_a_constant_is_found(name: str) -> None:
    history = np.full(HISTORY, 1e6)
    verdicts = fit(name, history).score(series(np.repeat([1e6, 1e6 + 1.0], 20), HISTORY))
    assert not verdicts.is_anomaly[:20].any()
    assert verdicts.is_anomaly[20]


# ---- what each finds ---------------------------------------------------------------------------------------


def test_ewma_follows_a_level_and_a_variance_that_drift() -> None:
    n = 2 * HISTORY
    sigma = np.exp(np.sin(2 * np.pi * np.arange(n) / 1500))
    values = 50.0 + 0.03 * np.cumsum(noise(n, 2)) + sigma * noise(n)
    calm = HISTORY + 1000 + np.flatnonzero(sigma[HISTORY + 1000 :] < 0.5)[:1]
    detector = fit("ewma", values[:HISTORY])
    assert detector.score(series(values[HISTORY:], HISTORY)).is_anomaly.mean() < 0.004
    values[calm] += 4.0
    assert detector.score(series(values[HISTORY:], HISTORY)).is_anomaly[calm - HISTORY].all()
    values[calm] -= 4.0
    loud = HISTORY + 1000 + np.flatnonzero(sigma[HISTORY + 1000 :] > 2.5)[:1]
    values[loud] += 4.0
    assert not detector.score(series(values[HISTORY:], HISTORY)).is_anomaly[loud - HISTORY].all()


def test_the_score_of_a_shift_that_lasts_fades_with_ewma() -> None:
    values = noise(HISTORY + 600)
    values[HISTORY + 100 :] += 8.0
    verdicts = fit("ewma", values[:HISTORY]).score(series(values[HISTORY:], HISTORY))
    assert verdicts.is_anomaly[100:105].all()
    assert verdicts.is_anomaly[400:].mean() < 0.01


@pytest.mark.parametrize("name", ["ewma", "autoregressive", "changepoint"])
def test_one_outlier_does_not_make_the_points_after_it_look_strange(name: str) -> None:
    values = autoregression(np.random.default_rng(4), HISTORY + 200) if name == "autoregressive" else noise(4200)
    values[HISTORY + 100] += 60.0
    verdicts = fit(name, values[:HISTORY]).score(series(values[HISTORY:], HISTORY))
    assert verdicts.is_anomaly[100]
    assert not verdicts.is_anomaly[101:140].any()


def test_seasonal_finds_the_period_itself_and_knows_the_days_of_the_week() -> None:
    values = daily_and_weekly(np.random.default_rng(1), 96 * 42)
    detector = fit("seasonal", values, 900.0)
    assert detector.state["model.period_s"] == DAY_S
    assert detector.state["model.cycle_s"] == WEEK_S
    monday = START_S + 42 * DAY_S + 900.0 * int(daily(np.arange(96), 900.0).argmax())
    saturday = monday + 5 * DAY_S
    usual = [detector.score_one(at, 0.0).expected for at in (monday, saturday)]
    assert usual[1] == pytest.approx(0.4 * usual[0], rel=0.2)
    assert detector.score_one(monday, usual[0]).kind is None
    assert detector.score_one(saturday, usual[0]).kind == "unusual_time"


def test_seasonal_takes_the_period_that_it_is_given() -> None:
    values = np.tile([1.0, 5.0, 2.0, 8.0], 100) + 0.1 * noise(400)
    assert fit("seasonal", values, period_s=480.0).state["model.period_s"] == 480.0
    assert fit("seasonal", values, period_s=1e6).state["model.period_s"] == 0.0


def test_a_value_that_is_usual_at_another_time_is_found_by_its_time() -> None:
    index = np.arange(96 * 20)
    values = daily(index, 900.0) + 0.2 * noise(len(index))
    detector = fit("seasonal", values, 900.0)
    peak, trough = values.max() - 0.5, int(daily(index[:96], 900.0).argmin())
    verdict = detector.score_one(START_S + 900.0 * (len(index) + trough), float(peak))
    assert verdict.is_anomaly
    assert verdict.kind == "unusual_time"


def test_a_season_that_is_missing_is_found() -> None:
    index = np.arange(96 * 21)
    values = daily(index, 900.0) + 0.2 * noise(len(index))
    values[-96:] = values[-97] + 0.05 * noise(96)
    verdicts = fit("seasonal", values[:-96], 900.0).score(series(values[-96:], 96 * 20, 900.0))
    assert verdicts.is_anomaly.mean() > 0.6
    assert "missing_season" in kinds(verdicts)


def test_a_lamp_that_is_on_at_the_wrong_time_is_found() -> None:
    index = np.arange(144 * 21)
    lamp = (index % 144 < 36) * 1.0
    verdicts = fit("seasonal", lamp[: 144 * 20], 600.0).score(series(lamp[144 * 20 :], 144 * 20, 600.0))
    assert not verdicts.is_anomaly.any()
    lamp[144 * 20 + 100] = 1.0
    lamp[144 * 20 + 10] = 0.0
    verdicts = fit("seasonal", lamp[: 144 * 20], 600.0).score(series(lamp[144 * 20 :], 144 * 20, 600.0))
    assert np.flatnonzero(verdicts.is_anomaly).tolist() == [10, 100]
    assert set(kinds(verdicts)) == {None, "unusual_time"}


def test_gaps_do_not_shift_a_season() -> None:
    index = np.arange(96 * 28)
    values = daily(index, 900.0) + 0.2 * noise(len(index))
    kept = np.flatnonzero(np.random.default_rng(1).random(96 * 24) < 0.6)
    kept = kept[(kept < 700) | (kept > 850)]
    kind = find_detector("seasonal")
    detector = kind.fit(Series(START_S + 900.0 * kept, values[kept]), kind.Params())
    verdicts = detector.score(series(values[96 * 24 :], 96 * 24, 900.0))
    assert np.abs(verdicts.expected - daily(index, 900.0)[96 * 24 :]).max() < 0.4
    assert verdicts.is_anomaly.mean() < 0.01


def test_an_autoregression_finds_a_small_kink_of_a_smooth_series() -> None:
    values = np.sin(2 * np.pi * np.arange(HISTORY + 200) / 37.3) + 0.001 * noise(HISTORY + 200)
    values[HISTORY + 100] += 0.05
    verdicts = fit("autoregressive", values[:HISTORY]).score(series(values[HISTORY:], HISTORY))
    assert verdicts.is_anomaly[100]
    assert verdicts.is_anomaly.sum() <= 3
    assert np.abs(verdicts.expected - values[HISTORY:])[90:100].max() < 0.01


def test_an_autoregression_learns_the_same_with_outliers_in_its_history() -> None:
    values = autoregression(np.random.default_rng(6), HISTORY)
    spoilt = values.copy()
    spoilt[np.arange(50, HISTORY, 100)] += 40.0
    point = START_S + 60.0 * HISTORY
    context = series(values[-40:], HISTORY - 40)
    expected = [fit("autoregressive", each).score_one(point, 0.0, context).expected for each in (values, spoilt)]
    assert expected[1] == pytest.approx(expected[0], abs=0.15)


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_a_change_point_is_found_and_stays_found(phi: float) -> None:
    values = autoregression(np.random.default_rng(7), HISTORY + 300, phi)
    values[HISTORY + 100 :] += 2.0 * values.std()
    verdicts = fit("changepoint", values[:HISTORY]).score(series(values[HISTORY:], HISTORY))
    assert verdicts.is_anomaly[:100].sum() <= 2
    assert verdicts.is_anomaly[100:120].any()
    assert verdicts.is_anomaly[140:].mean() > (0.9 if phi == 0 else 0.3)
    named = [kind for kind in kinds(verdicts)[110:] if kind]
    assert named.count("level_shift") > 0.8 * len(named)


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_a_change_of_variance_is_found_and_named(factor: float) -> None:
    values = 7.0 + noise(HISTORY + 300)
    values[HISTORY + 100 :] = 7.0 + factor * noise(200, 2)
    verdicts = fit("changepoint", values[:HISTORY]).score(series(values[HISTORY:], HISTORY))
    assert verdicts.is_anomaly[:100].sum() <= 2
    assert verdicts.is_anomaly[140:].mean() > 0.7
    named = [kind for kind in kinds(verdicts)[140:] if kind]
    assert named.count("variance_change") > 0.7 * len(named)


def test_a_flatline_is_found_and_named_though_its_value_is_usual() -> None:
    values = 10.0 + noise(HISTORY + 100)
    values[HISTORY + 50 :] = 10.1
    verdicts = fit("changepoint", values[:HISTORY]).score(series(values[HISTORY:], HISTORY))
    assert verdicts.is_anomaly[65:].all()
    assert set(kinds(verdicts)[65:]) == {"flatline"}


def test_change_points_are_named_with_all_points_in_view() -> None:
    values = 10.0 + noise(3000)
    values[1000:1060] += 6.0
    values[2000:2060] = 10.1
    kind = find_detector("changepoint")
    verdicts = kind.detect(series(values), kind.Params())
    assert kinds(verdicts)[1010:1060].count("level_shift") > 25
    assert {"flatline"} == set(kinds(verdicts)[2020:2060])


def test_a_shift_in_the_history_is_set_aside_without_leaving_a_flatline() -> None:
    clean, spoilt = noise(HISTORY), noise(HISTORY)
    spoilt[1000:1100] += 8.0
    after = noise(400, 3)
    after[200:] += 2.0
    found = [fit("changepoint", h).score(series(after, HISTORY)).is_anomaly for h in (clean, spoilt)]
    assert found[1][:200].sum() <= 4
    assert found[1][240:].mean() > 0.8 * found[0][240:].mean()


def test_a_weekly_number_of_alarms_is_kept_too() -> None:
    values = noise(HISTORY + NEW)
    detector = fit("ewma", values[:HISTORY], max_false_alarms_per_week=50.0)
    share = detector.score(series(values[HISTORY:], HISTORY)).is_anomaly.mean()
    assert share < 3 * rate_of_weekly(50.0, 60.0)


def test_with_all_points_in_view_the_first_ones_of_a_drifting_season_are_judged_by_those_after() -> None:
    index = np.arange(4 * 96.0)
    values = daily(index, 900.0) + np.cumsum(0.3 * noise(len(index), 3)) + 0.3 * noise(len(index))
    values[2] += 12.0
    kind = find_detector("seasonal")
    verdicts = kind.detect(series(values, 0, 900.0), kind.Params())
    assert fit("seasonal", values, 900.0).context_points > 8, "the level is taken to drift"
    assert verdicts.is_anomaly[:5].tolist() == [False, False, True, False, False]
    assert np.abs(verdicts.expected[:5] - values[:5])[[0, 1, 3, 4]].max() < 3.0


# ---- what is fast does what is obvious -----------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 5, 16, 64])
def test_sliding_medians_are_those_of_each_window(window: int) -> None:
    values = noise(300).round(1)  # with many that are equal
    each = [np.median(values[i : i + window]) for i in range(len(values) - window)]
    np.testing.assert_array_equal(kernels_values.recent_medians(values, window), each)


def test_medians_of_parts_are_those_of_their_members() -> None:
    values, index = noise(500), np.random.default_rng(2).integers(0, 9, 500) ** 2
    index[:100] = 7  # many in one part, none in most
    each = [np.median(values[index == part]) for part in index]
    np.testing.assert_array_equal(kernels_values.part_medians(index, values, 81), each)


@pytest.mark.parametrize("width", [0, 1, 7])
def test_smoothing_is_a_weighted_sum_on_a_circle(width: int) -> None:
    rows = np.array([noise(60), noise(60, 2)])
    weights = {shift: width + 1.0 - abs(shift) for shift in range(-width, width + 1)}
    each = sum(weight * np.roll(rows, shift, axis=1) for shift, weight in weights.items())
    np.testing.assert_allclose(kernels_values.smoothed(rows, width), each, rtol=0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_weighted_means_side_by_side_are_those_of_each_point_alone(beta: float) -> None:
    values, window, start, alpha, clip, typical = 3.0 * noise(200), 20, 5, 0.25, 3.0, 0.5
    expected, scales = kernels_values.exponential(values, window, start, alpha, beta, clip, typical)
    for i in range(len(values) - window):
        level, scale = float(np.median(values[i : i + start])), typical
        for value in values[i : i + window].tolist():
            step = min(max(value - level, -clip * max(scale, typical)), clip * max(scale, typical))
            level += alpha * step
            scale = max(scale + beta * (1.2533141373155003 * abs(step) - scale), 0.1 * typical)
        assert (expected[i], scales[i]) == (level, scale)


@pytest.mark.parametrize("n", [1, 2, 3, 100, 1001])
def test_several_quantiles_at_once_are_those_of_numpy(n: int) -> None:
    values, shares = noise(n), (0.0, 0.01, 0.5, 0.9, 0.98, 1.0)
    assert quantiles(values, *shares) == np.quantile(values, shares).tolist()
