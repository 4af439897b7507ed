"""What every detector of the family must hold, with its default parameters: a new one is tested by its name."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.detectors import DEFAULT_DETECTOR, DETECTORS, choose_detector, codec, find_detector
from app.detectors.base import KINDS, Detector, DetectorParams, Verdicts
from app.series import Series

LARGEST = float(np.finfo(np.float64).max)
POINTS = 600
LEVELS = {"ordinary": (100.0, 5.0), "around 1e9": (1e9, 1e-3), "huge": (1e300, 1e298), "tiny": (1e-300, 1e-302)}
SPIKES = (30.0, -30.0)  # in standard deviations of the noise
SPACING = 150  # points from one spike to the next
FIELDS = tuple(field.name for field in fields(Verdicts))


@pytest.fixture(params=list(DETECTORS))
def kind(request: pytest.FixtureRequest) -> type[Detector]:
    return find_detector(request.param)


def history(level: float = 100.0, noise: float = 5.0, seed: int = 1) -> Series:
    values = level + noise * np.random.default_rng(seed).standard_normal(POINTS)
    return Series(1_705_000_000.0 + 60.0 * np.arange(POINTS), values)


def following(level: float = 100.0, noise: float = 5.0, seed: int = 2) -> tuple[Series, NDArray[np.bool_]]:
    """The points after `history`, with spikes planted in them, and which of them are the spikes."""
    rng = np.random.default_rng(seed)
    values = level + noise * rng.uniform(-1.5, 1.5, POINTS)
    planted = np.arange(POINTS) % SPACING == SPACING - 1
    values[planted] = level + noise * np.resize(SPIKES, planted.sum())
    return Series(1_705_000_000.0 + 60.0 * (POINTS + np.arange(POINTS)), values), planted


def fit(kind: type[Detector], series: Series | None = None) -> Detector:
    return kind.fit(series or history(), kind.Params())


def before(points: Series, index: int, needed: int) -> Series:
    """The last points before one of `points`, those of `history` among them."""
    past = history()
    times, values = (
        np.concatenate(pair) for pair in ((past.timestamps_s, points.timestamps_s), (past.values, points.values))
    )
    end = len(past) + index
    return Series(times[max(end - needed, 0) : end], values[max(end - needed, 0) : end])


def after_a_spike(planted: NDArray[np.bool_], needed: int) -> NDArray[np.bool_]:
    """Which points have a spike among those that their verdict depends on, or are one."""
    return np.convolve(planted, np.ones(needed + 1))[: len(planted)] > 0


def bits(verdicts: Verdicts) -> list[bytes]:
    return [getattr(verdicts, field.name).tobytes() for field in fields(verdicts)]


def test_the_default_detector_is_one_of_the_family() -> None:
    assert DEFAULT_DETECTOR in DETECTORS


def test_it_is_known_by_the_name_in_the_table(kind: type[Detector]) -> None:
    assert DETECTORS[kind.name].endswith(f":{kind.__name__}")
    assert fit(kind).context_points >= 0


def test_all_its_parameters_have_defaults_and_descriptions_and_others_are_refused(kind: type[Detector]) -> None:
    assert issubclass(kind.Params, DetectorParams)
    kind.Params()
    for name, field in kind.Params.model_fields.items():
        assert field.description, f"parameter {name} has no description"
    faults: list[Any] = []
    assert choose_detector(kind.name, {"no_such_parameter": 1}, faults) is None
    assert [fault.pointer for fault in faults] == ["/params/no_such_parameter"]
    for name in kind.Params.model_fields:
        assert name in faults[0].detail, "the advice names what would be right"


def test_its_docstring_names_source_cost_what_it_finds_and_what_it_misses(kind: type[Detector]) -> None:
    for word in ("Source:", "Cost:", "Finds:", "Misses:"):
        assert word in (kind.__doc__ or "")


def test_fitting_is_deterministic(kind: type[Detector]) -> None:
    assert codec.encode(fit(kind)) == codec.encode(fit(kind))


def test_fitting_and_scoring_leave_their_input_alone(kind: type[Detector]) -> None:
    past, (points, _) = history(), following()
    for series in (past, points):
        series.values.flags.writeable = series.timestamps_s.flags.writeable = False
    fit(kind, past).score(points)


def test_its_state_is_all_there_is_of_it(kind: type[Detector]) -> None:
    fitted = fit(kind)
    points, _ = following()
    loaded = type(fitted).load(fitted.state, fitted.params)
    assert bits(loaded.score(points)) == bits(fitted.score(points))
    assert loaded.params == fitted.params


def test_its_state_round_trips_through_bytes(kind: type[Detector]) -> None:
    fitted = fit(kind)
    points, _ = following()
    data = codec.encode(fitted)
    decoded = codec.decode(data)
    assert type(decoded) is type(fitted)
    assert decoded.params == fitted.params
    assert codec.encode(decoded) == data
    assert bits(decoded.score(points)) == bits(fitted.score(points))


def test_the_same_points_get_the_same_verdicts_whatever_was_asked_before(kind: type[Detector]) -> None:
    fitted = fit(kind)
    points, _ = following()
    first = bits(fitted.score(points))
    fitted.score(Series(points.timestamps_s, points.values * 2 - 7))
    fitted.score_one(0.0, LARGEST)
    assert bits(fitted.score(points)) == first


def test_bulk_equals_one_at_a_time_bit_for_bit(kind: type[Detector]) -> None:
    fitted = fit(kind)
    points, planted = following()
    bulk = fitted.score(points)
    for i in np.union1d(np.arange(0, POINTS, 17), np.flatnonzero(planted)).tolist():
        point = float(points.timestamps_s[i]), float(points.values[i])
        one = fitted.score_one(*point, context=before(points, i, fitted.context_points))
        expected = [getattr(bulk, name)[i] for name in FIELDS]
        assert [*one[:-1], KINDS.index(one.kind)] == expected, f"point {i}"


@pytest.mark.parametrize("level", LEVELS)
def test_one_point_after_the_history_is_judged_as_in_bulk(kind: type[Detector], level: str) -> None:
    fitted = fit(kind, history(*LEVELS[level]))
    points, _ = following(*LEVELS[level])
    for value in (*points.values[:20].tolist(), points.values.max(), 0.0, LARGEST):
        point = Series(points.timestamps_s[:1], np.array([value]))
        for rate in (None, 0.05):
            assert fitted.score_one(float(point.timestamps_s[0]), value, None, rate) == (
                fitted.score(point, None, rate).first()
            )


def test_a_part_of_the_points_gets_the_same_verdicts_as_in_the_whole(kind: type[Detector]) -> None:
    fitted = fit(kind)
    points, _ = following()
    part = np.arange(17, 370)
    context = before(points, 17, fitted.context_points)
    alone = fitted.score(Series(points.timestamps_s[part], points.values[part]), context)
    assert bits(alone) == bits(fitted.score(points).take(part))


def test_points_in_any_order_get_the_same_verdicts(kind: type[Detector]) -> None:
    fitted = fit(kind)
    points, _ = following()
    order = np.random.default_rng(3).permutation(POINTS)
    mixed = fitted.score(Series(points.timestamps_s[order], points.values[order]))
    assert bits(mixed) == bits(fitted.score(points).take(order))


def test_points_without_enough_before_them_are_left_in_peace(kind: type[Detector]) -> None:
    fitted = fit(kind)
    points, _ = following()
    verdicts = fitted.score(points, context=Series(np.array([]), np.array([])))
    known = verdicts.p_value < 1
    assert known[fitted.context_points :].any()
    assert np.all(verdicts.score[~known] <= 1)
    assert np.all(np.isfinite(verdicts.expected))


def test_a_larger_budget_flags_more_and_a_smaller_one_less(kind: type[Detector]) -> None:
    fitted = fit(kind)
    points = history(seed=4)
    flagged = [fitted.score(points, None, rate).is_anomaly for rate in (1e-4, 1e-2, 0.3)]
    assert flagged[0].sum() <= flagged[1].sum() < flagged[2].sum()
    assert np.all(flagged[1] | ~flagged[0])
    assert np.all(flagged[2] | ~flagged[1])


def test_p_values_are_probabilities_and_fall_as_scores_rise(kind: type[Detector]) -> None:
    points, _ = following()
    verdicts = fit(kind).score(points)
    assert np.all((verdicts.p_value >= 0) & (verdicts.p_value <= 1))
    assert verdicts.p_value[verdicts.is_anomaly].max() < verdicts.p_value[~verdicts.is_anomaly].min() * (1 + 1e-9)


def test_anomalies_have_a_kind_and_normal_points_none(kind: type[Detector]) -> None:
    points, planted = following()
    verdicts = fit(kind).score(points)
    assert np.array_equal(verdicts.kind > 0, verdicts.is_anomaly)
    named = {KINDS[index] for index in verdicts.kind[planted & verdicts.is_anomaly].tolist()}
    assert named <= {"spike", "dip", "variance_change", "shape", "level_shift"}


def test_a_direction_looks_at_one_side_alone(kind: type[Detector]) -> None:
    points, _ = following()
    for direction in ("above", "below"):
        verdicts = kind.fit(history(), kind.Params(direction=direction)).score(points)
        is_open = np.isinf(verdicts.lower if direction == "above" else verdicts.upper)
        assert is_open.all()
        sign = 1 if direction == "above" else -1
        assert np.all(sign * (points.values - verdicts.expected)[verdicts.is_anomaly] > 0)


def test_what_is_near_to_what_was_expected_can_be_let_pass(kind: type[Detector]) -> None:
    points, _ = following()
    allowed = kind.fit(history(), kind.Params(min_dev_from_expected=1000.0)).score(points)
    assert not allowed.is_anomaly.any()
    relative = kind.fit(history(), kind.Params(min_rel_dev_from_expected=0.5)).score(points)
    assert np.all(np.abs(points.values / relative.expected - 1)[relative.is_anomaly] > 0.5)


def test_spikes_are_found_with_all_points_in_view(kind: type[Detector]) -> None:
    points, planted = following()
    verdicts = kind.detect(points, kind.Params())
    assert np.all(verdicts.is_anomaly[planted])
    assert np.array_equal(verdicts.is_anomaly, (points.values < verdicts.lower) | (points.values > verdicts.upper))
    assert np.array_equal(verdicts.score > 1, verdicts.is_anomaly)
    assert np.array_equal(verdicts.kind > 0, verdicts.is_anomaly)
    assert bits(kind.detect(points, kind.Params())) == bits(verdicts)


def test_training_data_with_anomalies_does_not_blunt_it(kind: type[Detector]) -> None:
    if kind.name == "mean_std":
        pytest.skip("mean and standard deviation are moved by anomalies: its docstring says so")
    clean = history()
    spoilt = Series(clean.timestamps_s, clean.values.copy())
    spoilt.values[300:306] += 400.0
    points, planted = following()
    assert np.all(fit(kind, spoilt).score(points).is_anomaly[planted])


@pytest.mark.parametrize("level", LEVELS)
def test_score_above_1_means_anomaly_means_outside_the_bounds(kind: type[Detector], level: str) -> None:
    fitted = fit(kind, history(*LEVELS[level]))
    points, _ = following(*LEVELS[level])
    odd = [0.0, -0.0, LARGEST, -LARGEST, 5e-324]
    extremes = Series(points.timestamps_s[: len(odd)], np.array(odd))
    for series in (points, extremes):
        verdicts = fitted.score(series)
        outside = (series.values < verdicts.lower) | (series.values > verdicts.upper)
        assert np.array_equal(verdicts.is_anomaly, outside)
        assert np.array_equal(verdicts.score > 1, outside)
        assert np.array_equal(verdicts.severity > 0, outside)
        assert np.all(np.isfinite(verdicts.expected))
        assert np.all(np.isfinite(verdicts.score))
        assert np.all(verdicts.score >= 0)
        assert np.all((verdicts.severity >= 0) & (verdicts.severity <= 1))
        assert np.all(verdicts.lower <= verdicts.upper)


@pytest.mark.parametrize("level", LEVELS)
def test_the_score_is_the_right_way_up(kind: type[Detector], level: str) -> None:
    fitted = fit(kind, history(*LEVELS[level]))
    points, planted = following(*LEVELS[level])
    score = fitted.score(points).score
    assert score[planted].min() > score[~after_a_spike(planted, fitted.context_points)].max()


def test_planted_spikes_are_found_and_normal_points_are_left_in_peace(kind: type[Detector]) -> None:
    points, planted = following()
    fitted = fit(kind)
    verdicts = fitted.score(points)
    assert np.all(verdicts.is_anomaly[planted])
    assert np.count_nonzero(verdicts.is_anomaly[~after_a_spike(planted, fitted.context_points)]) <= 0.01 * POINTS


def test_a_higher_spike_is_more_severe(kind: type[Detector]) -> None:
    fitted = fit(kind)
    timestamp_s = 1_705_000_000.0 + 60.0 * POINTS
    verdicts = [fitted.score_one(timestamp_s, 100.0 + 5.0 * sigmas) for sigmas in (0, 10, 20, 40, 1000)]
    assert [v.severity for v in verdicts] == sorted(v.severity for v in verdicts)
    assert [v.score for v in verdicts] == sorted(v.score for v in verdicts)
    assert verdicts[-1].score > verdicts[1].score > 1 >= verdicts[0].score


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0],
        [0.0, 5e-324, 0.0],
        [1e9, math.nextafter(1e9, 2e9)],
        [LARGEST] * 7 + [-LARGEST] * 7,
        [0.0] * 999 + [1e-300],
    ],
    ids=["two", "subnormal", "neighbours", "largest", "almost constant"],
)
def test_it_fits_every_history_that_a_request_may_carry(kind: type[Detector], values: list[float]) -> None:
    past = Series(np.arange(len(values), dtype=np.float64), np.array(values))
    assert len(fit(kind, past).score(past).score) == len(values)


def test_no_points_get_no_verdicts(kind: type[Detector]) -> None:
    verdicts = fit(kind).score(Series(np.array([]), np.array([])))
    assert [len(getattr(verdicts, name)) for name in FIELDS] == [0] * len(FIELDS)


@pytest.mark.parametrize("name", ["no_such", "", "MEAN_STD", "../mean_std", 1, True, [], {}])
def test_an_unknown_detector_is_a_fault_that_names_the_known_ones(name: object) -> None:
    faults: list[Any] = []
    assert choose_detector(name, None, faults) is None
    assert [fault.pointer for fault in faults] == ["/detector"]
    assert all(known in faults[0].detail for known in DETECTORS)
