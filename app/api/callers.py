"""Who calls, as the routes see it."""

from typing import Annotated

from fastapi import Depends, Request

from app.api_keys import ALL_SERIES, ApiKey, Scope, SeriesPatterns, describe_scopes
from app.errors import ScopeMissing, SeriesNotAllowed
from app.rate_limits import Meter

CALLER = "tidemark.caller"
"""Where the gate leaves it in the scope of a request."""


class Caller:
    """The key of a request, and what it may still ask for."""

    __slots__ = ("key", "meter", "open_scopes")

    def __init__(self, key: ApiKey | None = None, meter: Meter | None = None) -> None:
        """Without a key everything is allowed: the service asks for none."""
        self.key = key
        self.meter = meter
        self.open_scopes: frozenset[Scope] = key.scopes if key is not None and key.series.are_all else frozenset()
        """Those that it has for all series: `check` would let them pass."""

    @property
    def name(self) -> str | None:
        """What versions remember of it."""
        return None if self.key is None else self.key.name

    @property
    def series(self) -> SeriesPatterns:
        """The series that it sees."""
        return ALL_SERIES if self.key is None else self.key.series

    def check(self, scope: Scope, series_id: str | None) -> None:
        """Raises ScopeMissing; SeriesNotAllowed, when a series is asked for."""
        key = self.key
        if key is None:
            return
        if scope not in key.scopes:
            has = describe_scopes(key.scopes)
            raise ScopeMissing(f"This takes the scope {scope}, and the key {key.name} has {has}.")
        if series_id is not None:
            self.check_series(series_id)

    def check_series(self, series_id: str) -> None:
        """Raises SeriesNotAllowed."""
        if self.key is not None and not self.key.series.match(series_id):
            raise SeriesNotAllowed(f"The key {self.key.name} is for {self.key.series.text} only, not for {series_id}.")

    def charge_points(self, points: int) -> None:
        """Count points against the limit of the key. Raises RateLimitExceeded."""
        if self.meter is not None:
            self.meter.charge("points", points)


ANYONE = Caller()


def caller_of(request: Request) -> Caller:
    """Whom the gate has let in."""
    caller: Caller = request.scope[CALLER]
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]
