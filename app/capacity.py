"""How much a process takes on at once: bytes, requests and computations, each bounded, and what is beyond refused."""

import os
import time
from collections.abc import Callable
from threading import Lock
from typing import ParamSpec, TypeVar

import structlog
from anyio import CapacityLimiter, to_thread

from app.config import Settings
from app.errors import Overloaded

_MB = 2**20
_HEALTH_THREADS = 8
_SAY_EVERY_S = 10.0

Given = ParamSpec("Given")
Made = TypeVar("Made")

log = structlog.get_logger()


class Budget:
    """Bytes that may be held at once, by all who hold a `Share` of them; safe to use from threads."""

    def __init__(self, limit_bytes: int, advice: str) -> None:
        """`advice` is what an `Overloaded` says."""
        self._limit_bytes = limit_bytes
        self._advice = advice
        self._held_bytes = 0
        self._lock = Lock()

    @property
    def held_bytes(self) -> int:
        """By all together."""
        return self._held_bytes

    def refusal(self) -> Overloaded:
        """The error of whoever finds no room."""
        return refused(self._advice)

    def move(self, change_bytes: int, *, must: bool = False) -> bool:
        """Take or, when negative, give back; False when there is no room. `must` takes it all the same."""
        with self._lock:
            if change_bytes > 0 and not must and self._held_bytes + change_bytes > self._limit_bytes:
                return False
            self._held_bytes += change_bytes
            return True


class Share:
    """What one holder has of a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._bytes = 0

    def try_hold(self, size: int, *, must: bool = False) -> bool:
        """Hold `size` bytes, in place of what it held; False when there is no room for more."""
        if not self._budget.move(size - self._bytes, must=must):
            return False
        self._bytes = size
        return True

    def hold(self, size: int) -> None:
        """The same. Raises Overloaded when there is no room."""
        if not self.try_hold(size):
            raise self._budget.refusal()

    def add(self, size: int) -> None:
        """Hold what is there already, be there room or not; then others find less."""
        self.try_hold(self._bytes + size, must=True)

    def release(self) -> None:
        """Hold nothing any more."""
        self.try_hold(0)


class Capacity:
    """What one process takes on at once."""

    def __init__(self, settings: Settings) -> None:
        bodies_mb = max(settings.max_bodies_mb, settings.max_body_mb)  # a body that may come fits when it comes alone
        self.bodies = Budget(
            bodies_mb * _MB,
            f"The bodies and answers of other requests take up {bodies_mb} MB: send it again in a moment, or raise "
            "MAX_BODIES_MB",
        )
        self.spool = Budget(
            settings.max_spool_mb * _MB,
            f"Answers that nobody reads take up {settings.max_spool_mb} MB of disk: read them, or raise MAX_SPOOL_MB",
        )
        self.most_requests = settings.max_requests
        self.requests = 0
        """Whole and not answered yet."""
        self._computing = CapacityLimiter(_most_computations(settings))
        self._most_computing = _most_computations(settings) + settings.max_waiting_computations
        self._computations = 0
        self._health = CapacityLimiter(_HEALTH_THREADS)

    def enter(self) -> None:
        """Count a request that is whole; `leave` must follow. Raises Overloaded."""
        if self.requests >= self.most_requests:
            advice = "send it again in a moment, or raise MAX_REQUESTS"
            raise refused(f"{self.most_requests} requests are being worked on: {advice}")
        self.requests += 1

    def leave(self) -> None:
        """It is answered."""
        self.requests -= 1

    async def compute(self, work: Callable[Given, Made], *args: Given.args, **kwargs: Given.kwargs) -> Made:
        """Do what takes the processor for long, in a thread, when its turn comes. Raises Overloaded when many wait."""
        if self._computations >= self._most_computing:
            advice = "send it again later, or raise MAX_WAITING_COMPUTATIONS"
            raise refused(f"{self._most_computing} fits and detections are running or waiting: {advice}")
        self._computations += 1
        try:
            return await self.compute_in_turn(work, *args, **kwargs)
        finally:
            self._computations -= 1

    async def compute_in_turn(self, work: Callable[Given, Made], *args: Given.args, **kwargs: Given.kwargs) -> Made:
        """The same for the parts of a stream: it waits, and its client waits with it."""
        return await to_thread.run_sync(lambda: work(*args, **kwargs), limiter=self._computing)

    async def look(self, work: Callable[[], Made]) -> Made:
        """Ask how the service is, in a thread that is kept for that."""
        return await to_thread.run_sync(work, limiter=self._health)


def _most_computations(settings: Settings) -> int:
    """By default one for each processor that this worker has to itself, and two where that is less."""
    return settings.max_computations or max(2, len(os.sched_getaffinity(0)) // settings.workers)


_said_at_s: dict[str, float] = {}


def refused(detail: str) -> Overloaded:
    """The error, and now and then a line of the log."""
    now_s = time.monotonic()
    if now_s - _said_at_s.get(detail, -_SAY_EVERY_S) >= _SAY_EVERY_S:
        _said_at_s[detail] = now_s
        log.warning("overloaded", detail=detail)
    return Overloaded(f"{detail}.")
