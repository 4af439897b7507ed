"""What becomes of timestamps, values and names in every form that a request may write them."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Fault
from app.series import (
    LATEST_TIMESTAMP_S,
    MAX_FAULTS,
    Series,
    format_timestamp,
    parse_history,
    parse_points,
    parse_series_id,
    parse_timestamp,
    parse_value,
)

LARGEST = float(np.finfo(np.float64).max)
NOON = 1_705_000_000  # 2024-01-11T19:06:40Z

ACCEPTED_TIMESTAMPS: list[tuple[object, float]] = [
    (0, 0.0),
    (0.0, 0.0),
    (-0.0, 0.0),
    (NOON, NOON),
    (1705000000.25, 1705000000.25),
    ("1705000000", NOON),
    (" 1705000000 ", NOON),
    ("1705000000.5", 1705000000.5),
    ("0", 0.0),
    ("0001", 1.0),
    (LATEST_TIMESTAMP_S, LATEST_TIMESTAMP_S),
    ("2024-01-11T19:06:40Z", NOON),
    ("2024-01-11t19:06:40z", NOON),
    ("2024-01-11 19:06:40Z", NOON),
    (" 2024-01-11T19:06:40Z ", NOON),
    ("2024-01-11T19:06:40+00:00", NOON),
    ("2024-01-11T19:06:40-00:00", NOON),
    ("2024-01-11T20:36:40+01:30", NOON),
    ("2024-01-11T11:06:40-08:00", NOON),
    ("2024-01-11T19:06:40.5Z", NOON + 0.5),
    ("2024-01-11T19:06:40.250000Z", NOON + 0.25),
    ("2024-01-11T19:06:40.125000000Z", NOON + 0.125),
    ("2024-01-11T19:06:40.1234567Z", 1705000000.1234567),
    ("2024-01-11T21:06:40.123456789999+02:00", 1705000000.123456789),
    ("1970-01-01T00:00:00.000000001Z", 1e-9),
    ("1970-01-01T00:00:00Z", 0.0),
    ("1970-01-01T01:00:00+01:00", 0.0),
    ("2024-02-29T00:00:00Z", 1709164800.0),
    ("9999-12-31T23:59:59Z", LATEST_TIMESTAMP_S),
]

REFUSED_TIMESTAMPS: list[tuple[object, str]] = [
    (-1, "negative"),
    (-0.5, "negative"),
    ("1969-12-31T23:59:59Z", "negative"),
    ("1970-01-01T00:00:00+01:00", "negative"),
    ("0001-01-01T00:00:00+23:59", "negative"),
    (LATEST_TIMESTAMP_S + 1, "beyond the year 9999"),
    (1_705_000_000_000_000_000, "beyond the year 9999"),
    ("9999-12-31T23:59:59-23:59", "beyond the year 9999"),
    (10**400, "finite"),
    (math.nan, "finite"),
    (math.inf, "finite"),
    (-math.inf, "finite"),
    (None, "null"),
    (True, "true"),
    (False, "false"),
    ([], "a list"),
    ([NOON], "a list"),
    ({}, "an object"),
    ("", "neither"),
    (" ", "neither"),
    ("-1", "neither"),
    ("+1", "neither"),
    ("1e9", "neither"),
    ("1_000", "neither"),
    ("0x10", "neither"),
    ("NaN", "neither"),
    ("inf", "neither"),
    ("12.", "neither"),
    ("٣", "neither"),
    ("1705000000\n1", "neither"),
    ("yesterday", "neither"),
    ("2024-01-11", "neither"),
    ("2024-01-11T19:06:40", "no time zone"),
    ("2024-01-11T19:06Z", "neither"),
    ("20240111T190640Z", "neither"),
    ("2024-W02-4T19:06:40Z", "neither"),
    ("2024-01-11T19:06:40+0100", "neither"),
    ("2024-01-11T19:06:40+01", "neither"),
    ("2024-01-11T19:06:40,5Z", "neither"),
    ("2024-01-11T19:06:40.Z", "neither"),
    ("2024-13-11T19:06:40Z", "exists"),
    ("2023-02-29T19:06:40Z", "exists"),
    ("2024-01-11T25:06:40Z", "exists"),
    ("2024-01-11T19:60:40Z", "exists"),
    ("2024-01-11T19:06:40+24:00", "exists"),
    ("0000-01-01T00:00:00Z", "exists"),
]

REFUSED_VALUES: list[tuple[object, str]] = [
    ("10.5", 'the text "10.5"'),
    ("", 'the text ""'),
    (True, "true"),
    (False, "false"),
    (None, "null"),
    ([], "a list"),
    ({}, "an object"),
    (math.nan, "finite"),
    (math.inf, "finite"),
    (-math.inf, "finite"),
    (10**400, "finite"),
    (-(10**400), "finite"),
]


def short(raw: object) -> str:
    return repr(raw)[:40]


def points(timestamps: object, values: object, max_points: int = 1000) -> tuple[Series | None, list[Fault]]:
    faults: list[Fault] = []
    return parse_points(timestamps, values, max_points, faults), faults


def history(timestamps: object, values: object, **limits: int) -> tuple[Series | None, list[Fault]]:
    faults: list[Fault] = []
    return parse_history(timestamps, values, **{"min_points": 3, "max_points": 1000} | limits, faults=faults), faults


def pointers(parsed: tuple[Series | None, list[Fault]]) -> list[str]:
    assert parsed[0] is None, "what has faults must not give a series"
    return [fault.pointer for fault in parsed[1]]


@pytest.mark.parametrize(("raw", "expected"), ACCEPTED_TIMESTAMPS, ids=short)
def test_a_timestamp_is_taken_in_every_form_of_the_contract(raw: object, expected: float) -> None:
    assert parse_timestamp(raw) == expected


@pytest.mark.parametrize(("raw", "advice"), REFUSED_TIMESTAMPS, ids=short)
def test_any_other_timestamp_is_refused_with_advice(raw: object, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        parse_timestamp(raw)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001  the zone comes from the next line
    st.integers(-23 * 60, 23 * 60),
)
def test_an_rfc_3339_string_is_the_moment_that_it_names(naive: datetime, offset_minutes: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_timestamp(moment.isoformat()) == pytest.approx((moment - epoch) / timedelta(seconds=1), abs=1e-6)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, int(LATEST_TIMESTAMP_S)))
def test_a_formatted_timestamp_is_parsed_back(timestamp_s: int) -> None:
    text = format_timestamp(float(timestamp_s))
    assert text.endswith("Z")
    assert parse_timestamp(text) == timestamp_s


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers())))
def test_whatever_a_timestamp_is_it_is_taken_or_refused_with_a_value_error(raw: object) -> None:
    with suppress(ValueError):
        assert 0 <= parse_timestamp(raw) <= LATEST_TIMESTAMP_S


@pytest.mark.parametrize("raw", [0, -0.0, 10.5, -3, 5e-324, LARGEST, -LARGEST, 2**53 + 1, 10**308])
def test_a_value_is_any_finite_number(raw: float) -> None:
    assert parse_value(raw) == float(raw)


@pytest.mark.parametrize(("raw", "advice"), REFUSED_VALUES, ids=short)
def test_any_other_value_is_refused_with_advice(raw: object, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        parse_value(raw)


@pytest.mark.parametrize(("raw", "advice"), REFUSED_VALUES, ids=short)
def test_a_refused_value_in_a_list_is_named_by_its_index(raw: object, advice: str) -> None:
    parsed = history([1, 2, 3, 4], [1.0, 2, raw, 4])
    assert pointers(parsed) == ["/values/2"]
    assert advice in parsed[1][0].detail


@pytest.mark.parametrize(("raw", "advice"), REFUSED_TIMESTAMPS, ids=short)
def test_a_refused_timestamp_in_a_list_is_named_by_its_index(raw: object, advice: str) -> None:
    parsed = history([1, raw, 3, 4], [1.0, 2, 3, 4])
    assert pointers(parsed) == ["/timestamps/1"]
    assert advice in parsed[1][0].detail


def test_every_form_of_a_timestamp_means_the_same_in_a_list_as_alone() -> None:
    raw = [raw for raw, _ in ACCEPTED_TIMESTAMPS]
    parsed, faults = points(raw, [1.0] * len(raw))
    assert not faults
    assert parsed is not None
    assert parsed.timestamps_s.tolist() == [parse_timestamp(item) for item in raw]


def test_integers_and_decimals_become_the_nearest_floats() -> None:
    raw = [0, 1.5, 2**53 + 1, 2**63, 10**300, -(2**64) - 1]
    parsed, _ = points(range_list := [0, 1, 2, 3, 4, 5.5], raw)
    assert parsed is not None
    assert parsed.values.tolist() == [float(value) for value in raw]
    assert parsed.values.dtype == parsed.timestamps_s.dtype == np.float64
    assert parsed.timestamps_s.tolist() == range_list


@pytest.mark.parametrize("form", [lambda t: t, float, str, lambda t: format_timestamp(float(t))])
@pytest.mark.parametrize("second", [NOON, NOON - 1])
def test_a_history_must_increase_strictly_in_time(form: Callable[[int], object], second: int) -> None:
    parsed = history([form(t) for t in (NOON, second, NOON + 1, NOON + 2)], [1.0, 2, 3, 4])
    assert pointers(parsed) == ["/timestamps/1"]
    assert "sort" in parsed[1][0].detail


def test_points_to_judge_may_come_in_any_order_and_twice() -> None:
    parsed, faults = points([5, 3, 3], [1.0, 1.0, 1.0])
    assert not faults
    assert parsed is not None
    assert parsed.timestamps_s.tolist() == [5, 3, 3]


@pytest.mark.parametrize("raw", [None, "1,2,3", 7, True, {}, {"0": 1}])
def test_what_is_no_list_is_a_fault_of_its_own(raw: object) -> None:
    assert pointers(history(raw, [1.0, 2, 3])) == ["/timestamps"]
    assert pointers(history([1, 2, 3], raw)) == ["/values"]
    assert pointers(history(raw, raw)) == ["/timestamps", "/values"]


def test_lists_of_different_lengths_are_a_fault_that_says_both_lengths() -> None:
    parsed = history([1, 2, 3, 4], [1.0, 2, 3])
    assert pointers(parsed) == ["/values"]
    assert "3" in parsed[1][0].detail
    assert "4" in parsed[1][0].detail


def test_all_faults_of_a_history_are_named_at_once() -> None:
    parsed = history([1, "x", -3, 4, 5], [1.0, None, "2", 4])
    assert pointers(parsed) == ["/timestamps/1", "/timestamps/2", "/values/1", "/values/2", "/values"]


def test_order_is_checked_beside_faults_of_values() -> None:
    assert pointers(history([1, 3, 2], [1.0, 2, None])) == ["/timestamps/2", "/values/2"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_short_a_history_is_refused_and_the_least_length_named(count: int) -> None:
    parsed = history(list(range(count)), [float(i) for i in range(count)])
    assert pointers(parsed) == ["/values"]
    assert "at least 3" in parsed[1][0].detail


def test_a_history_of_the_least_length_is_taken() -> None:
    assert history([1, 2], [1.0, 2.0], min_points=2)[0] is not None


@pytest.mark.parametrize("value", [0.0, 1.5, 1e300, 5e-324])
def test_a_history_of_equal_values_is_refused(value: float) -> None:
    parsed = history([1, 2, 3], [value] * 3)
    assert pointers(parsed) == ["/values"]
    assert "vary" in parsed[1][0].detail


def test_zero_and_minus_zero_do_not_vary() -> None:
    assert pointers(history([1, 2, 3], [0.0, -0.0, 0])) == ["/values"]


def test_more_points_than_allowed_are_refused_before_they_are_looked_at() -> None:
    parsed = points([1] * 11, ["x"] * 11, max_points=10)
    assert pointers(parsed) == ["/timestamps", "/values"]
    assert "at most 10" in parsed[1][0].detail
    assert points([1] * 10, [1.0] * 10, max_points=10)[0] is not None


def test_a_thousand_faults_are_named_up_to_a_limit_and_counted_beyond() -> None:
    parsed = points([1] * 1000, [None] * 1000)
    assert pointers(parsed) == [f"/values/{i}" for i in range(MAX_FAULTS)] + ["/values"]
    assert str(1000 - MAX_FAULTS) in parsed[1][-1].detail
    falling = history(list(range(1000, 0, -1)), [float(i) for i in range(1000)])
    assert pointers(falling) == [f"/timestamps/{i + 1}" for i in range(MAX_FAULTS)] + ["/timestamps"]
    assert str(999 - MAX_FAULTS) in falling[1][-1].detail


items: st.SearchStrategy[Any] = st.one_of(
    st.integers(), st.floats(), st.text(max_size=5), st.none(), st.booleans(), st.just(10**400), st.just("17")
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(items, max_size=6), st.lists(items, max_size=6))
def test_a_series_is_given_exactly_when_there_is_no_fault(timestamps: list[Any], values: list[Any]) -> None:
    for parsed, faults in (points(timestamps, values), history(timestamps, values)):
        assert (parsed is None) == bool(faults)
        json.dumps([fault._asdict() for fault in faults])
        if parsed is not None:
            assert np.all(np.isfinite(parsed.values))
            assert len(parsed) == len(timestamps) == len(values)


@pytest.mark.parametrize("raw", ["a", "sensor_01", "A.b-C_9", ".hidden", "-", "x" * 200, " padded ", "\tpadded\n", "."])
def test_a_series_id_is_taken_and_its_blanks_are_stripped(raw: str) -> None:
    faults: list[Fault] = []
    assert parse_series_id(raw, faults) == raw.strip()
    assert not faults


@pytest.mark.parametrize(
    "raw", ["", " ", "..", "a..b", "x" * 201, "a b", "a/b", "a\\b", "é", "a:b", "a\0", "a\nb", "٣", "a%20b", "@a", "a?"]
)
def test_any_other_series_id_is_a_fault_of_the_path(raw: str) -> None:
    faults: list[Fault] = []
    parse_series_id(raw, faults)
    assert [(fault.pointer, fault.location) for fault in faults] == [("/series_id", "path")]
    assert "sensor_01" in faults[0].detail, "the advice shows one that is right"
