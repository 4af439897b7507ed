"""What every parser promises, whatever it is given."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from app.errors import BodyTooLarge, Fault, InvalidInput, SourceUnreadable
from app.series import LATEST_TIMESTAMP_S, Series
from app.versions import Selector

LONGEST_MESSAGE = 2_000
MOST_FAULTS = 500
LOCATIONS = {"body", "path", "query", "header"}
NOTHING = object()


class Broken(AssertionError):
    """A promise that was not kept."""


def promise(kept: object, what: str) -> None:
    """Raises Broken; unlike an assert also where Python is told to skip those."""
    if not kept:
        raise Broken(what)


@contextmanager
def refusing(document: object = NOTHING) -> Iterator[list[str]]:
    """Lets our errors pass when they say where in the `document` and what; yields what came of it."""
    outcome: list[str] = []
    try:
        yield outcome
    except InvalidInput as error:
        promise(error.faults, "a refusal without a fault")
        check_faults(error.faults, document)
        outcome.append(" ".join(fault.pointer.rstrip("0123456789") + fault.detail[:20] for fault in error.faults[:3]))
    except BodyTooLarge as error:
        check_message(error.detail)
        outcome.append("too large")


def check_faults(faults: Iterable[Fault], document: object = NOTHING) -> None:
    """Each says something, and points at a place that is there, or at one that is missing in a place that is."""
    promise(len(list(faults)) <= MOST_FAULTS, f"{len(list(faults))} faults")
    for fault in faults:
        promise(fault.location in LOCATIONS, f"a fault in the {fault.location}")
        check_message(fault.detail)
        promise(fault.pointer == "" or fault.pointer.startswith("/"), f"the pointer {fault.pointer!r}")
        if document is not NOTHING and fault.location == "body":
            _follow(fault.pointer, document)


def check_message(message: str) -> None:
    """Neither empty nor a page."""
    promise(10 <= len(message) <= LONGEST_MESSAGE, f"a message of {len(message)} characters: {message[:200]!r}")


def check_unreadable(error: SourceUnreadable) -> str:
    """The refusal of a file, which has no place but itself; gives what came of it."""
    check_message(error.detail)
    return error.detail[-30:]


def check_points(series: Series, *, increasing: bool = False) -> None:
    """Finite float64 in range, index-aligned."""
    for array in (series.timestamps_s, series.values):
        promise(array.dtype == np.float64 and array.ndim == 1, f"an array of {array.dtype}, {array.ndim} dimensions")
        promise(np.isfinite(array).all(), "numbers that are not finite")
    promise(len(series.timestamps_s) == len(series.values), "lengths that differ")
    promise(((series.timestamps_s >= 0) & (series.timestamps_s <= LATEST_TIMESTAMP_S)).all(), "times out of range")
    if increasing:
        promise((np.diff(series.timestamps_s) > 0).all(), "times that do not increase")


def check_selector(selector: Selector) -> None:
    """A number from 0 or the name of an alias."""
    is_number = isinstance(selector, int) and 0 <= selector <= 999_999_999
    promise(is_number or (isinstance(selector, str) and 1 <= len(selector) <= 100), f"the selector {selector!r}")


def check_same(one: Series, other: Series, what: str) -> None:
    """The same points to the last bit."""
    same = np.array_equal(one.timestamps_s, other.timestamps_s) and np.array_equal(one.values, other.values)
    promise(same, f"{what}: {one} and {other}")


def document_of(body: bytes) -> object:
    """The JSON of a body as Python's own parser reads it; NOTHING where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return NOTHING


def _follow(pointer: str, document: object) -> None:
    place = document
    *path, last = [key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]] or [""]
    if not pointer:
        return
    for key in path:
        promise(isinstance(place, dict | list), f"{pointer} leads into {place!r}")
        try:
            place = place[int(key)] if isinstance(place, list) else place[key]  # type: ignore[index]
        except (KeyError, IndexError, ValueError):
            raise Broken(f"{pointer} leads to nothing") from None
    if isinstance(place, list):
        promise(last.isdigit() and int(last) < len(place), f"{pointer} leads beyond a list")
    else:
        promise(isinstance(place, dict), f"{pointer} leads into {place!r}")
