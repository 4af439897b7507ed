"""A series: one value per timestamp, validated once, float64 arrays from then on."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.errors import Fault

FloatArray = NDArray[np.float64]

MAX_FAULTS = 100
"""Faults named one by one for each array; the rest are counted in one more."""

LATEST_TIMESTAMP_S = 253402300799.0
"""9999-12-31T23:59:59Z, the last second that RFC 3339 can write."""

_LARGEST = float(np.finfo(np.float64).max)
_LIMITS = {"timestamps": (0.0, LATEST_TIMESTAMP_S), "values": (-_LARGEST, _LARGEST)}

_DIGITS = re.compile(r"[0-9]{1,19}(\.[0-9]{1,19})?", re.ASCII)
_WITHOUT_ZONE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?", re.ASCII)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DIGITS_OF_DATETIME = 6
_PER_SECOND = 10**9
_SERIES_ID = re.compile(r"[A-Za-z0-9._-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Points of one series, index-aligned.

    timestamps_s: shape (n,), Unix seconds, finite, 0 .. LATEST_TIMESTAMP_S.
    values: shape (n,), finite.
    """

    timestamps_s: FloatArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.values)

    def first(self, n: int) -> "Series":
        """The first n points."""
        return Series(self.timestamps_s[:n], self.values[:n])

    def last(self, n: int) -> "Series":
        """The last n points, or all of them."""
        start = max(len(self) - n, 0)
        return Series(self.timestamps_s[start:], self.values[start:])


class Point(NamedTuple):
    """One point to judge."""

    timestamp_s: float
    value: float


def format_timestamp(timestamp_s: float) -> str:
    """RFC 3339 in UTC, to the microsecond where there is one."""
    return datetime.fromtimestamp(timestamp_s, UTC).isoformat().replace("+00:00", "Z")


def parse_series_id(raw: str, faults: list[Fault], location: str = "path") -> str:
    """The name of a series, surrounding blanks stripped; appends to `faults` what is wrong with it."""
    series_id = raw.strip()
    if not _SERIES_ID.fullmatch(series_id) or ".." in series_id:
        advice = "must be 1 to 200 letters, digits, '.', '_' or '-', without '..': for example sensor_01"
        faults.append(Fault("/series_id", advice, location))
    return series_id


def parse_timestamp(raw: object) -> float:
    """Unix seconds from a number, a string of digits or an RFC 3339 string.

    Raises ValueError with advice when it is none of these, negative or beyond the year 9999.
    """
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        timestamp_s = _finite(raw)
    elif isinstance(raw, str):
        timestamp_s = _timestamp_of_text(raw.strip())
    else:
        raise ValueError(f"must be Unix seconds or an RFC 3339 string, not {_name(raw)}")
    if timestamp_s < 0:
        raise ValueError("must not be negative: Unix seconds count from 1970-01-01T00:00:00Z")
    if timestamp_s > LATEST_TIMESTAMP_S:
        raise ValueError("lies beyond the year 9999: send seconds, not milliseconds or nanoseconds")
    return timestamp_s


def parse_value(raw: object) -> float:
    """A finite number. Raises ValueError with advice for anything else, numeric strings and booleans too."""
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return _finite(raw)
    raise ValueError(f"must be a finite number like 10.5, not {_name(raw)}")


def parse_points(timestamps: object, values: object, max_points: int, faults: list[Fault]) -> Series | None:
    """Index-aligned points in any order; appends to `faults` and gives None where they are not."""
    return _parse(timestamps, values, max_points, faults, lambda _: None)


def parse_history(
    timestamps: object, values: object, *, min_points: int, max_points: int, faults: list[Fault], varies: bool = True
) -> Series | None:
    """Points to fit a model to: strictly increasing in time, `min_points` or more, not all equal if it `varies`.

    Appends to `faults` and gives None where they are not.
    """
    before = len(faults)
    history = _parse(timestamps, values, max_points, faults, lambda array: _check_order(array, faults))
    if isinstance(values, list) and len(values) < min_points:
        faults.append(Fault("/values", f"has {len(values)} points, a fit needs at least {min_points}"))
    elif history is not None and varies and np.all(history.values == history.values[0]):
        advice = f"all {len(history)} values equal {history.values[0]:g}: a fit needs values that vary"
        faults.append(Fault("/values", advice))
    return history if len(faults) == before else None


def find_history_faults(
    history: Series, min_points: int, max_points: int, faults: list[Fault], *, varies: bool = True
) -> None:
    """What `parse_history` would refuse, for points that come from a table, sorted by time; NaN stands for none."""
    timestamps_s, values = history.timestamps_s, history.values
    if not min_points <= len(history) <= max_points:
        faults.append(Fault("/value", f"has {len(history)} points, a fit needs {min_points} to {max_points}"))
        return
    if bad := np.count_nonzero(~is_time(timestamps_s)):
        advice = "must be Unix seconds from 0 to the year 9999, not milliseconds, and must not be missing"
        faults.append(Fault("/timestamp", f"{advice}: {bad} of {len(history)} are not"))
    elif len(repeated := np.flatnonzero(np.diff(timestamps_s) <= 0)):
        first = format_timestamp(float(timestamps_s[repeated[0]]))
        faults.append(Fault("/timestamp", f"{len(repeated)} times come more than once, the first is {first}"))
    if bad := np.count_nonzero(~np.isfinite(values)):
        faults.append(Fault("/value", f"{bad} of {len(history)} values are missing or not finite: leave them out"))
    elif varies and np.all(values == values[0]):
        faults.append(Fault("/value", f"all {len(history)} values equal {values[0]:g}: a fit needs values that vary"))


def is_time(timestamps_s: FloatArray) -> NDArray[np.bool_]:
    """Where these are Unix seconds that a point may have."""
    return (timestamps_s >= 0) & (timestamps_s <= LATEST_TIMESTAMP_S)


def _parse(
    timestamps: object,
    values: object,
    max_points: int,
    faults: list[Fault],
    check_timestamps: Callable[[FloatArray], None],
) -> Series | None:
    timestamps_s = _parse_list(timestamps, "timestamps", parse_timestamp, max_points, faults)
    if timestamps_s is not None:
        check_timestamps(timestamps_s)
    parsed_values = _parse_list(values, "values", parse_value, max_points, faults)
    if isinstance(timestamps, list) and isinstance(values, list) and len(timestamps) != len(values):
        advice = f"has {len(values)} items and /timestamps has {len(timestamps)}: send one value for each timestamp"
        faults.append(Fault("/values", advice))
        return None
    if timestamps_s is None or parsed_values is None:
        return None
    return Series(timestamps_s, parsed_values)


def _parse_list(
    raw: object, name: str, parse: Callable[[object], float], max_points: int, faults: list[Fault]
) -> FloatArray | None:
    if not isinstance(raw, list):
        found = "it is missing" if raw is None else f"not {_name(raw)}"
        faults.append(Fault(f"/{name}", f"must be a list with one item for each point, {found}"))
        return None
    if len(raw) > max_points:
        advice = f"has {len(raw)} items, at most {max_points} are taken: split the request or raise MAX_POINTS"
        faults.append(Fault(f"/{name}", advice))
        return None
    array = _parse_numbers(raw)
    if array is not None and _within(array, *_LIMITS[name]):
        return array
    return _parse_each(raw, name, parse, faults)


def _parse_numbers(raw: list[object]) -> FloatArray | None:
    """The fast way; None when an item is no number, or an integer that no float can hold."""
    if not set(map(type, raw)) <= {int, float}:
        return None
    try:
        return np.array(raw, dtype=np.float64)
    except OverflowError:
        return None


def _within(array: FloatArray, low: float, high: float) -> bool:
    return bool(np.all((array >= low) & (array <= high)))


def _parse_each(
    raw: list[object], name: str, parse: Callable[[object], float], faults: list[Fault]
) -> FloatArray | None:
    """The slow way: text timestamps, and a fault for each item that is none."""
    array = np.empty(len(raw), dtype=np.float64)
    refused = 0
    for index, item in enumerate(raw):
        try:
            array[index] = parse(item)
        except ValueError as error:
            refused += 1
            if refused <= MAX_FAULTS:
                faults.append(Fault(f"/{name}/{index}", str(error)))
    if refused > MAX_FAULTS:
        faults.append(Fault(f"/{name}", f"{refused - MAX_FAULTS} more items need to be corrected"))
    return None if refused else array


def _check_order(timestamps_s: FloatArray, faults: list[Fault]) -> None:
    late = np.flatnonzero(np.diff(timestamps_s) <= 0) + 1
    for index in late[:MAX_FAULTS]:
        advice = "must come after the one before it: sort the points by time and drop duplicates"
        faults.append(Fault(f"/timestamps/{index}", advice))
    if len(late) > MAX_FAULTS:
        faults.append(Fault("/timestamps", f"{len(late) - MAX_FAULTS} more items are out of order"))


def _finite(raw: float) -> float:
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("must be a finite number: leave out points that have no value")
    return number


def _timestamp_of_text(text: str) -> float:
    if _DIGITS.fullmatch(text):
        return float(text)
    if _WITHOUT_ZONE.fullmatch(text):
        raise ValueError(f'"{text}" has no time zone: append Z for UTC, or an offset like +02:00')
    parts = _RFC3339.fullmatch(text)
    if not parts:
        raise ValueError(f'"{text[:40]}" is neither Unix seconds nor RFC 3339 like 2024-01-11T19:06:40Z')
    begin, fraction, zone = parts.groups()
    try:
        if fraction and len(fraction.rstrip("0")) > 1 + _DIGITS_OF_DATETIME:  # nanoseconds, as tables have them
            whole_s = int(datetime.fromisoformat(f"{begin}{zone}".upper()).timestamp())
            return (whole_s * _PER_SECOND + int(fraction[1:10].ljust(9, "0"))) / _PER_SECOND
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(f'"{text[:40]}" is not a date and time that exists: {error}') from None


def _name(raw: object) -> str:
    """How the author of the JSON would call it."""
    if raw is None:
        return "null"
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, str):
        return f'the text "{raw[:40]}"'
    if isinstance(raw, int | float):
        return f"the number {raw}"
    return "a list" if isinstance(raw, list) else "an object"
