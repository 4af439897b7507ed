"""Rate limits: how much each key has asked for in this minute, shared through Redis where there are many replicas."""

import math
import time
from threading import Lock
from typing import Literal, get_args

from redis import Redis

from app.api_keys import ApiKey, Limits
from app.background import BackgroundLoop
from app.errors import ConfigurationError, RateLimitExceeded

WINDOW_S = 60
SYNC_INTERVAL_S = 0.1
KEY_PREFIX = "tidemark:asked:"
_REDIS_TIMEOUT_S = 1.0

Field = Literal["requests", "points"]
_FIELDS: tuple[Field, ...] = get_args(Field)
"""What is counted, in the order of `Limits`."""


class _Count:
    """What was asked for in one minute: by this process and, as far as is known, by the others."""

    __slots__ = ("field", "limit", "shared", "unsent")

    def __init__(self, field: str, limit: int) -> None:
        self.field = field
        self.limit = limit
        self.shared = 0
        self.unsent = 0

    @property
    def left(self) -> int:
        return max(0, self.limit - self.shared - self.unsent)


class Meter:
    """What one key may still ask for in this minute. Minutes are those of the clock, so that replicas agree on them."""

    def __init__(self, key: ApiKey, limits: Limits) -> None:
        self._key = key
        pairs = zip(_FIELDS, limits, strict=True)
        self._limits = {field: limit for field, limit in pairs if limit is not None}
        policy = ", ".join(f'"{field}";q={limit};w={WINDOW_S}' for field, limit in self._limits.items())
        self._policy = b"ratelimit-policy", policy.encode()
        self._left = ", ".join(f'"{field}";r=%d;t=%d' for field in self._limits).encode()
        self._lock = Lock()
        self._window = -1
        self._ends_s = 0.0
        self._counts: dict[str, _Count] = {}

    def charge(self, field: Field, asked: int) -> None:
        """Raises RateLimitExceeded when they are too many."""
        with self._lock:
            self._turn(time.time())
            count = self._counts.get(field)
            if count is None:
                return
            if count.shared + count.unsent + asked > count.limit:
                raise self._refusal(count, asked)
            count.unsent += asked

    def headers(self) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """What is left, as draft-ietf-httpapi-ratelimit-headers has it."""
        figures: list[int] = []
        with self._lock:
            now_s = time.time()
            self._turn(now_s)
            ends_in_s = _whole_seconds(self._ends_s - now_s)
            for count in self._counts.values():
                figures += count.left, ends_in_s
        return self._policy, (b"ratelimit", self._left % tuple(figures))

    def exchange(self, redis: Redis) -> None:
        """Tell Redis what this process has counted, and learn what the others have. Raises RedisError."""
        with self._lock:
            window, counts = self._window, list(self._counts.values())
            told = [count.unsent for count in counts]
        if window != _window_at(time.time()):
            return
        name = f"{KEY_PREFIX}{self._key.key_id}:{window}"
        with redis.pipeline() as pipeline:
            for count, asked in zip(counts, told, strict=True):
                pipeline.hincrby(name, count.field, asked)
            pipeline.expire(name, 2 * WINDOW_S)
            totals = pipeline.execute()
        with self._lock:  # a count that ended meanwhile takes no harm
            for count, asked, total in zip(counts, told, totals, strict=False):
                count.shared = int(total)
                count.unsent -= asked

    def _refusal(self, count: _Count, asked: int) -> RateLimitExceeded:
        wait_s = _whole_seconds(self._ends_s - time.time())
        allowed = f"The key {self._key.name} may send {count.limit:,} {count.field} a minute"
        if asked > count.limit:
            return RateLimitExceeded(f"{allowed}, and this request alone has {asked:,}: send fewer at a time.", wait_s)
        return RateLimitExceeded(f"{allowed}, and {count.left:,} are left: go on in {wait_s} s.", wait_s)

    def _turn(self, now_s: float) -> None:
        """Begin anew in another minute, which is an earlier one when the clock is set back."""
        if self._ends_s - WINDOW_S <= now_s < self._ends_s:
            return
        self._window = _window_at(now_s)
        self._ends_s = (self._window + 1.0) * WINDOW_S
        self._counts = {field: _Count(field, limit) for field, limit in self._limits.items()}


class RateLimiter:
    """The meters of all keys that have a limit.

    Alone it is exact. Replicas tell each other through Redis what they have counted, every SYNC_INTERVAL_S, so that
    together they let through at most what comes in that time beyond a limit. While Redis is away each counts for
    itself: nothing is refused for that reason.
    """

    def __init__(self, default: Limits, redis_url: str | None) -> None:
        """`default` is for keys without limits of their own. Raises ConfigurationError when it is not a Redis URL."""
        self._default = default
        self._meters: dict[str, Meter] = {}
        self._redis = None if redis_url is None else _connect(redis_url)
        self._loop = BackgroundLoop(
            self._exchange,
            interval_s=SYNC_INTERVAL_S,
            failed="rate limits cannot be shared through Redis: each process counts for itself",
            recovered="rate limits are shared through Redis again",
        )

    def meter(self, key: ApiKey) -> Meter | None:
        """What this key may ask for; None when it has no limit."""
        own = key.limits
        limits = Limits(
            *(mine if mine is not None else theirs for mine, theirs in zip(own, self._default, strict=True))
        )
        if limits == Limits():
            return None
        return self._meters.setdefault(key.key_id, Meter(key, limits))

    def start(self) -> None:
        """Begin to share, where there is Redis."""
        if self._redis is not None:
            self._loop.start()

    def stop(self) -> None:
        """End it, after telling what was counted."""
        self._loop.stop()
        if self._redis is not None:
            self._redis.close()

    def _exchange(self) -> None:
        assert self._redis is not None
        for meter in list(self._meters.values()):
            meter.exchange(self._redis)


def _window_at(now_s: float) -> int:
    return int(now_s // WINDOW_S)


def _whole_seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def _connect(url: str) -> Redis:
    try:
        return Redis.from_url(
            url, decode_responses=True, socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
        )
    except ValueError as error:
        raise ConfigurationError(f"REDIS_URL cannot be used: {error}") from None
