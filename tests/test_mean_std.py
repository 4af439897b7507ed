"""mean_std against an exact oracle, over everything that a float can be."""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.detectors.base import KINDS, Verdict
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.series import Series

LARGEST = float(np.finfo(np.float64).max)
SMALLEST = math.ulp(0.0)
DIRECTIONS = ("both", "above", "below")

noise = st.floats(-1e-3, 1e-3)
magnitudes = {
    "around 1e9 with noise of 1e-3": noise.map(lambda n: 1e9 + n),
    "around -1e9 with noise of 1e-3": noise.map(lambda n: -1e9 + n),
    "up to 1e300": st.floats(-1e300, 1e300),
    "down to 1e-300": st.floats(-1e-300, 1e-300),
    "subnormal": st.floats(-2e-308, 2e-308),
    "ordinary": st.floats(-100, 100),
    "mixed": st.one_of(
        st.floats(-1e300, 1e300), st.floats(-1e-300, 1e-300), st.floats(-100, 100), st.sampled_from([1e9, 1e16, 0.0])
    ),
}
any_value = st.floats(allow_nan=False, allow_infinity=False)
params = st.builds(
    MeanStdParams, k=st.one_of(st.just(3.0), st.floats(1e-3, 100)), direction=st.sampled_from(DIRECTIONS)
)


def fit(values: Sequence[float], chosen: MeanStdParams | None = None) -> MeanStd:
    return MeanStd.fit(series(values), chosen or MeanStdParams())


def series(values: Sequence[float]) -> Series:
    return Series(np.arange(len(values), dtype=np.float64), np.array(values, dtype=np.float64))


def vary(values: Sequence[float]) -> bool:
    return min(values) != max(values)


def exact_mean_and_std(values: Sequence[float]) -> tuple[Fraction, Fraction]:
    """By the definition, in rational numbers; the root to 200 bits."""
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    p, q = variance.numerator, variance.denominator
    return mean, Fraction(math.isqrt(p * q << 400), q << 200)


def distance_outside(value: float, mean: Fraction, half_width: Fraction, direction: str) -> Fraction:
    """How far beyond the border of the band, negative inside it."""
    deviation = Fraction(value) - mean
    if direction == "both":
        deviation = abs(deviation)
    elif direction == "below":
        deviation = -deviation
    return deviation - half_width


def bits(verdict: Sequence[float]) -> list[bytes]:
    return [struct.pack("<d", field) for field in verdict]


def one_by_one(model: MeanStd, values: Sequence[float]) -> list[list[bytes]]:
    return [bits([*one[:-1], KINDS.index(one.kind)]) for one in (model.score_one(0.0, value) for value in values)]


def in_bulk(model: MeanStd, values: Sequence[float]) -> list[list[bytes]]:
    v = model.score(series(values))
    columns = (v.expected, v.lower, v.upper, v.score, v.is_anomaly, v.severity, v.p_value, v.kind)
    return [bits(row) for row in zip(*columns, strict=True)]


def near(model: MeanStd) -> list[float]:
    """Values on and around the borders, where rounding decides."""
    verdict = model.score_one(0.0, 0.0)
    found = []
    for border in (verdict.lower, verdict.upper, verdict.expected):
        if math.isfinite(border):
            found += [border, math.nextafter(border, -math.inf), math.nextafter(border, math.inf)]
    return [value for value in found if math.isfinite(value)]


def assert_consistent(verdict: Verdict) -> None:
    assert math.isfinite(verdict.expected)
    assert math.isfinite(verdict.score)
    assert verdict.score >= 0
    assert (verdict.score > 1) == verdict.is_anomaly
    assert 0 <= verdict.severity <= 1
    assert (verdict.severity > 0) == verdict.is_anomaly
    assert verdict.lower <= verdict.upper


@pytest.mark.parametrize("kind", magnitudes)
def test_verdicts_are_those_of_the_exact_definition(kind: str) -> None:
    values = magnitudes[kind]

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(
        history=st.lists(values, min_size=3, max_size=30).filter(vary),
        asked=st.lists(values, min_size=1, max_size=10),
        chosen=params,
    )
    def check(history: list[float], asked: list[float], chosen: MeanStdParams) -> None:
        model = fit(history, chosen)
        mean, std = exact_mean_and_std(history)
        half_width = Fraction(chosen.k) * std
        # A mean and a half-width that are floats: a border may lie one step of the values' own grid off.
        step = Fraction(math.ulp(max(abs(value) for value in history)))
        tolerance = step + (half_width + std) / 10**12 + Fraction(chosen.k) * 2 * Fraction(SMALLEST)
        for value in [*asked, *history, *near(model)]:
            distance = distance_outside(value, mean, half_width, chosen.direction)
            if abs(distance) > tolerance:
                assert model.score_one(0.0, value).is_anomaly == (distance > 0)

    check()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(values=st.one_of(*magnitudes.values()).flatmap(lambda x: st.lists(st.floats(x - 1e-3, x + 1e-3), min_size=3)))
@example([1e9, math.nextafter(1e9, math.inf)])
@example([1e9 + 1, 1e9 + 1, 1e9 + 1, math.nextafter(1e9 + 1, 0)])
@example([1e300, 1e-300, 0.0])
@example([1.0, 1e16, -1e16])
def test_mean_and_std_are_exact_but_for_rounding(values: list[float]) -> None:
    if not vary(values):
        return
    mean, std = exact_mean_and_std(values)
    state = fit(values).state
    step = Fraction(math.ulp(max(abs(value) for value in values)))
    assert abs(Fraction(float(state["mean"])) - mean) <= step + std / 10**12
    assert abs(Fraction(float(state["std"])) - std) <= std / 10**9 + Fraction(SMALLEST)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    history=st.lists(any_value, min_size=2, max_size=20).filter(vary),
    asked=st.lists(any_value, min_size=1, max_size=20),
    chosen=params,
)
def test_bounds_score_and_anomaly_agree_and_bulk_equals_one_at_a_time(
    history: list[float], asked: list[float], chosen: MeanStdParams
) -> None:
    model = fit(history, chosen)
    values = [*asked, *near(model), LARGEST, -LARGEST, 0.0, -0.0]
    for value in values:
        verdict = model.score_one(0.0, value)
        assert_consistent(verdict)
        assert verdict.is_anomaly == (value < verdict.lower or value > verdict.upper)
    assert in_bulk(model, values) == one_by_one(model, values)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    mean=st.floats(-1e300, 1e300),
    std=st.floats(SMALLEST, 1e300),
    chosen=params,
    asked=st.lists(any_value, min_size=2, max_size=20),
)
def test_the_further_from_the_mean_the_higher_score_and_severity(
    mean: float, std: float, chosen: MeanStdParams, asked: list[float]
) -> None:
    model = MeanStd.load({"mean": np.array(mean), "std": np.array(std)}, chosen)
    for outwards in (
        sorted(value for value in asked if value >= mean),
        sorted((value for value in asked if value <= mean), reverse=True),
    ):
        verdicts = [model.score_one(0.0, value) for value in outwards]
        on_open_side = (chosen.direction == "above" and outwards[:1] < [mean]) or (
            chosen.direction == "below" and outwards[:1] > [mean]
        )
        if on_open_side:
            assert [verdict.score for verdict in verdicts] == [0.0] * len(verdicts)
            continue
        for nearer, further in pairwise(verdicts):
            assert nearer.score <= further.score
            assert nearer.severity <= further.severity
            assert nearer.is_anomaly <= further.is_anomaly


@settings(max_examples=100, deadline=None, derandomize=True)
@given(mean=st.floats(-1e6, 1e6), std=st.floats(1e-6, 1e6), k=st.floats(1e-3, 100))
def test_the_bounds_are_the_outermost_floats_within_k_std(mean: float, std: float, k: float) -> None:
    verdict = MeanStd.load({"mean": np.array(mean), "std": np.array(std)}, MeanStdParams(k=k)).score_one(0.0, mean)
    half_width = Fraction(k * std)
    for bound, outwards in ((verdict.lower, -math.inf), (verdict.upper, math.inf)):
        assert abs(Fraction(bound) - Fraction(mean)) <= half_width
        assert abs(Fraction(math.nextafter(bound, outwards)) - Fraction(mean)) > half_width


@pytest.mark.parametrize("count", [1, 7, 32, 33, 500])
def test_values_at_the_largest_float_do_not_overflow(count: int) -> None:
    halves = fit([LARGEST] * count + [-LARGEST] * count)
    for value in (LARGEST, -LARGEST, 0.0, 1e308):
        verdict = halves.score_one(0.0, value)
        assert_consistent(verdict)
        assert not verdict.is_anomaly
    almost_equal = fit([LARGEST] * count + [math.nextafter(LARGEST, 0)])
    assert not almost_equal.score_one(0.0, LARGEST).is_anomaly
    assert almost_equal.score_one(0.0, 0.0).is_anomaly


def test_three_sigma_of_a_small_series_by_hand() -> None:
    model = fit([10.0, 10.5, 9.5, 10.0])  # mean 10, population variance 1/8
    verdict = model.score_one(0.0, 13.0)
    assert verdict.expected == 10.0
    assert verdict.upper == pytest.approx(10 + 3 * math.sqrt(1 / 8))
    assert verdict.lower == pytest.approx(10 - 3 * math.sqrt(1 / 8))
    assert verdict.score == pytest.approx(math.sqrt(8))
    assert verdict.severity == pytest.approx(1 - 1 / math.sqrt(8))
    assert not model.score_one(0.0, 11.0).is_anomaly
    assert model.score_one(0.0, 11.1).is_anomaly


def test_the_direction_decides_on_which_side_a_point_is_an_anomaly() -> None:
    verdicts = {
        direction: [fit([9.0, 11.0], MeanStdParams(direction=direction)).score_one(0.0, x) for x in (0.0, 10.0, 20.0)]
        for direction in DIRECTIONS
    }
    assert [v.is_anomaly for v in verdicts["both"]] == [True, False, True]
    assert [v.is_anomaly for v in verdicts["above"]] == [False, False, True]
    assert [v.is_anomaly for v in verdicts["below"]] == [True, False, False]
    assert {(v.lower, v.upper) for v in verdicts["both"]} == {(7.0, 13.0)}
    assert {(v.lower, v.upper) for v in verdicts["above"]} == {(-math.inf, 13.0)}
    assert {(v.lower, v.upper) for v in verdicts["below"]} == {(7.0, math.inf)}


def test_k_widens_the_band() -> None:
    narrow, wide = (fit([9.0, 11.0], MeanStdParams(k=k)) for k in (1.0, 5.0))
    assert narrow.score_one(0.0, 12.0).is_anomaly
    assert not wide.score_one(0.0, 12.0).is_anomaly
    assert wide.score_one(0.0, 15.1).is_anomaly


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_p_values_are_those_of_the_normal_distribution(direction: str) -> None:
    model = fit([-1.0, 1.0], MeanStdParams(direction=direction))
    deviations = np.linspace(-6.5, 6.5, 4001)
    sides = {"both": (np.abs(deviations), 1.0), "above": (deviations, 0.5), "below": (-deviations, 0.5)}
    off, share = sides[direction]
    exact = [share * math.erfc(place / math.sqrt(2.0)) for place in off.tolist()]
    np.testing.assert_allclose(model.score(series(deviations.tolist())).p_value, exact, rtol=1e-4)
    assert model.score_one(0.0, 1e300 if direction != "below" else -1e300).p_value == math.exp(-28.0)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_false_alarm_rate_flags_what_is_rarer(direction: str) -> None:
    model = fit([-1.0, 1.0], MeanStdParams(direction=direction))
    values = series(np.linspace(-6.5, 6.5, 4001).tolist())
    for rate in (0.3, 0.01, 1e-6):
        verdicts = model.score(values, false_alarm_rate=rate)
        assert np.array_equal(verdicts.is_anomaly, verdicts.p_value < rate)
