"""The query of a prediction: which version, how many false alarms, and how many later points in view."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from app.alarms import BUDGET_PARAMETERS, AlarmBudget, parse_budget
from app.errors import Fault
from app.series import MAX_FAULTS
from app.versions import Selector, parse_selector

MOST_LOOKAHEAD_POINTS = 100_000

_PARAMETERS = ("version", *BUDGET_PARAMETERS, "lookahead_points")
_INTEGER = re.compile("[0-9]{1,6}")


class PredictQuery(NamedTuple):
    """What is asked of points beside the points."""

    selector: Selector
    budget: AlarmBudget | None
    lookahead_points: int = 0
    """How many of the points after it, in the same request, each point is judged with."""


def parse_predict_query(items: Sequence[tuple[str, str]], faults: list[Fault]) -> PredictQuery:
    """The query of a prediction: a mistyped parameter must not end in the latest version."""
    find_unknown(items, _PARAMETERS, faults)
    selector = parse_selector(_single("version", items, faults), faults)
    lookahead_points = _parse_lookahead(_single("lookahead_points", items, faults), faults)
    return PredictQuery(selector, parse_budget(items, faults), lookahead_points)


def find_unknown(items: Sequence[tuple[str, str]], known: Sequence[str], faults: list[Fault]) -> None:
    """Appends to `faults` what a route does not take, one by one as far as someone would read it."""
    unknown = [name for name, _ in items if name not in known]
    advice = f"is no parameter of this route: it takes {', '.join(known)}"
    faults += [Fault(f"/{name}", advice, "query") for name in unknown[:MAX_FAULTS]]
    if len(unknown) > MAX_FAULTS:
        faults.append(
            Fault("", f"has {len(unknown) - MAX_FAULTS} more parameters that are none of this route", "query")
        )


def _single(name: str, items: Sequence[tuple[str, str]], faults: list[Fault]) -> str | None:
    """The value of a parameter that is given once or not at all."""
    given = [raw for found, raw in items if found == name]
    if len(given) > 1:
        faults.append(Fault(f"/{name}", f"is given {len(given)} times: give one", "query"))
    return given[0] if given else None


def _parse_lookahead(raw: str | None, faults: list[Fault]) -> int:
    if raw is None:
        return 0
    lookahead_points = int(raw) if _INTEGER.fullmatch(raw) else -1
    if not 0 <= lookahead_points <= MOST_LOOKAHEAD_POINTS:
        faults.append(Fault("/lookahead_points", f"must be an integer, 0 to {MOST_LOOKAHEAD_POINTS}", "query"))
    return lookahead_points
