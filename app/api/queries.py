"""The query of a prediction: which version, and how many false alarms."""

from collections.abc import Sequence
from typing import NamedTuple

from app.alarms import BUDGET_PARAMETERS, AlarmBudget, parse_budget
from app.errors import Fault
from app.versions import Selector, parse_selector

_PARAMETERS = ("version", *BUDGET_PARAMETERS)


class PredictQuery(NamedTuple):
    """What is asked of points beside the points."""

    selector: Selector
    budget: AlarmBudget | None


def parse_predict_query(items: Sequence[tuple[str, str]], faults: list[Fault]) -> PredictQuery:
    """The query of a prediction: a mistyped parameter must not end in the latest version."""
    advice = f"is no parameter of this route: it takes {', '.join(_PARAMETERS)}"
    faults += [Fault(f"/{name}", advice, "query") for name, _ in items if name not in _PARAMETERS]
    named = [raw for name, raw in items if name == "version"]
    if len(named) > 1:
        faults.append(Fault("/version", f"is given {len(named)} times: give one", "query"))
    return PredictQuery(parse_selector(named[0] if named else None, faults), parse_budget(items, faults))
