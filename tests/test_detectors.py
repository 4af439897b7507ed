"""What every detector of the family must hold, with its default parameters: a new one is tested by its name."""

import math
import struct
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.detectors import DEFAULT_DETECTOR, DETECTORS, choose_detector, codec, find_detector
from app.detectors.base import Detector, DetectorParams, Verdicts
from app.series import Series

LARGEST = float(np.finfo(np.float64).max)
POINTS = 600
LEVELS = {"ordinary": (100.0, 5.0), "around 1e9": (1e9, 1e-3), "huge": (1e300, 1e298), "tiny": (1e-300, 1e-302)}
SPIKES = (30.0, -30.0)  # in standard deviations of the noise
FIELDS = ("expected", "lower", "upper", "score", "is_anomaly", "severity")


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
    planted = np.zeros(POINTS, dtype=np.bool_)
    planted[rng.choice(POINTS, 20, replace=False)] = True
    values[planted] = level + noise * np.resize(SPIKES, planted.sum())
    return Series(1_705_000_000.0 + 60.0 * (POINTS + np.arange(POINTS)), values), planted


def fit(kind: type[Detector], series: Series | None = None) -> Detector:
    return kind.fit(series or history(), kind.Params())


def bits(verdicts: Verdicts) -> list[bytes]:
    return [getattr(verdicts, field.name).tobytes() for field in fields(verdicts)]


def test_the_default_detector_is_one_of_the_family() -> None:
    assert DEFAULT_DETECTOR in DETECTORS


def test_it_is_known_by_the_name_in_the_table(kind: type[Detector]) -> None:
    assert DETECTORS[kind.name].endswith(f":{kind.__name__}")
    assert kind.context_points >= 0


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
    loaded = kind.load(fitted.state, fitted.params)
    assert bits(loaded.score(points)) == bits(fitted.score(points))
    assert loaded.params == fitted.params


def test_its_state_round_trips_through_bytes(kind: type[Detector]) -> None:
    fitted = fit(kind)
    points, _ = following()
    data = codec.encode(fitted)
    decoded = codec.decode(data)
    assert type(decoded) is kind
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


@pytest.mark.parametrize("level", LEVELS)
def test_bulk_equals_one_at_a_time_bit_for_bit(kind: type[Detector], level: str) -> None:
    fitted = fit(kind, history(*LEVELS[level]))
    points, _ = following(*LEVELS[level])
    bulk = fitted.score(points)
    for i in range(len(points)):
        one = fitted.score_one(float(points.timestamps_s[i]), float(points.values[i]))
        expected = [struct.pack("<d", getattr(bulk, name)[i]) for name in FIELDS]
        assert [struct.pack("<d", field) for field in one] == expected


def test_a_part_of_the_points_gets_the_same_verdicts_as_in_the_whole(kind: type[Detector]) -> None:
    fitted = fit(kind)
    points, _ = following()
    part = np.arange(17, 170)
    alone = fitted.score(Series(points.timestamps_s[part], points.values[part]))
    assert bits(alone) == bits(fitted.score(points).take(part))


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
    assert score[planted].min() > score[~planted].max()


def test_planted_spikes_are_found_and_normal_points_are_left_in_peace(kind: type[Detector]) -> None:
    points, planted = following()
    verdicts = fit(kind).score(points)
    assert np.all(verdicts.is_anomaly[planted])
    assert np.count_nonzero(verdicts.is_anomaly[~planted]) <= 0.01 * POINTS


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
