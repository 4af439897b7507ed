"""Alarm budgets: how many false alarms a caller can live with."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from app.detectors.base import Detector
from app.detectors.judging import HIGHEST_RATE, rate_of_weekly
from app.errors import Fault, InvalidInput

BUDGET_PARAMETERS = ("false_alarm_rate", "max_false_alarms_per_week")
_NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""Narrower than Python's own: 1_0, nan and the digits of other scripts are taken for mistakes."""

_LARGEST = {"false_alarm_rate": HIGHEST_RATE, "max_false_alarms_per_week": 1e9}


class AlarmBudget(NamedTuple):
    """At most so many false alarms: a share of normal points, or a number a week; exactly one is given."""

    false_alarm_rate: float | None = None
    max_false_alarms_per_week: float | None = None

    def rate_for(self, detector: Detector) -> float:
        """The share of normal points that a detector may flag. Raises InvalidInput when a week means nothing to it."""
        if self.false_alarm_rate is not None:
            return self.false_alarm_rate
        assert self.max_false_alarms_per_week is not None
        if math.isnan(detector.interval_s):
            advice = f"needs a model that knows its sampling, which this one of {detector.name} does not"
            raise InvalidInput([Fault("/max_false_alarms_per_week", f"{advice}: give false_alarm_rate", "query")])
        return rate_of_weekly(self.max_false_alarms_per_week, detector.interval_s)


def plain_number(raw: str) -> float:
    """The number that a query writes plainly, not negative; NaN when it is none."""
    return float(raw) if _NUMBER.fullmatch(raw) else math.nan


def parse_budget(items: Sequence[tuple[str, str]], faults: list[Fault]) -> AlarmBudget | None:
    """The budget that a query asks for, None when it does not; appends to `faults`."""
    given = [(name, raw) for name, raw in items if name in BUDGET_PARAMETERS]
    if not given:
        return None
    if len(given) > 1:
        faults.append(Fault(f"/{given[1][0]}", "is a second alarm budget: give one", "query"))
        return None
    name, raw = given[0]
    asked = plain_number(raw)
    if not 0 < asked <= _LARGEST[name]:
        advice = f"must be a number like 0.001 or 1e-3, above 0 and at most {_LARGEST[name]:g}"
        faults.append(Fault(f"/{name}", advice, "query"))
        return None
    return AlarmBudget(**{name: max(asked, 1e-12)})
