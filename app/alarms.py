"""Alarm budgets: how many false alarms a caller can live with."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from app.detectors.base import Detector
from app.detectors.judging import HIGHEST_RATE, rate_of_weekly
from app.errors import Fault, InvalidInput

BUDGET_PARAMETERS = ("false_alarm_rate", "max_false_alarms_per_week")
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


def parse_budget(items: Sequence[tuple[str, str]], faults: list[Fault]) -> AlarmBudget | None:
    """The budget that a query asks for, None when it does not; appends to `faults`."""
    given = [(name, raw) for name, raw in items if name in BUDGET_PARAMETERS]
    if not given:
        return None
    if len(given) > 1:
        faults.append(Fault(f"/{given[1][0]}", "is a second alarm budget: give one", "query"))
        return None
    name, raw = given[0]
    try:
        asked = float(raw)
    except ValueError:
        asked = math.nan
    if not 0 < asked <= _LARGEST[name]:
        faults.append(Fault(f"/{name}", f"must be a number above 0, at most {_LARGEST[name]:g}", "query"))
        return None
    return AlarmBudget(**{name: max(asked, 1e-12)})
