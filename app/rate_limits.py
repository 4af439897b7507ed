"""Rate limits: how much each key has asked for in this minute, shared through Redis where there are many replicas."""

import math
import time
from threading import Lock

from redis import Redis

from app.api_keys import ApiKey, Limits
from app.background import BackgroundLoop
from app.errors import ConfigurationError, RateLimitExceeded

WINDOW_S = 60
SYNC_INTERVAL_S = 0.1
KEY_PREFIX = "tidemark:asked:"
_REDIS_TIMEOUT_S = 1.0


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
        self._limits = limits
        self._lock = Lock()
        self._window = -1
        self._requests: _Count | None = None
        self._points: _Count | None = None

    def charge_request(self) -> None:
        """Raises RateLimitExceeded when it is one too many."""
        with self._lock:
            self._turn()
            if self._requests is not None:
                self._charge(self._requests, 1)

    def charge_points(self, points: int) -> None:
        """Raises RateLimitExceeded when they are too many."""
        with self._lock:
            self._turn()
            if self._points is not None:
                self._charge(self._points, points)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What is left, as draft-ietf-httpapi-ratelimit-headers has it."""
        with self._lock:
            self._turn()
            counts = self._counts()
            ends_in_s = self._ends_in_s()
        policy = ", ".join(f'"{count.field}";q={count.limit};w={WINDOW_S}' for count in counts)
        now = ", ".join(f'"{count.field}";r={count.left};t={ends_in_s}' for count in counts)
        return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", now.encode())]

    def exchange(self, redis: Redis) -> None:
        """Tell Redis what this process has counted, and learn what the others have. Raises RedisError."""
        with self._lock:
            window, counts = self._window, self._counts()
            told = [count.unsent for count in counts]
        if window != _this_window():
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

    def _charge(self, count: _Count, asked: int) -> None:
        if asked > count.left:
            raise self._refusal(count, asked)
        count.unsent += asked

    def _refusal(self, count: _Count, asked: int) -> RateLimitExceeded:
        wait_s = self._ends_in_s()
        allowed = f"The key {self._key.name} may send {count.limit:,} {count.field} a minute"
        if asked > count.limit:
            return RateLimitExceeded(f"{allowed}, and this request alone has {asked:,}: send fewer at a time.", wait_s)
        return RateLimitExceeded(f"{allowed}, and {count.left:,} are left: go on in {wait_s} s.", wait_s)

    def _turn(self) -> None:
        window = _this_window()
        if window != self._window:
            self._window = window
            requests, points = self._limits
            self._requests = None if requests is None else _Count("requests", requests)
            self._points = None if points is None else _Count("points", points)

    def _counts(self) -> list[_Count]:
        return [count for count in (self._requests, self._points) if count is not None]

    def _ends_in_s(self) -> int:
        return max(1, math.ceil((self._window + 1) * WINDOW_S - time.time()))


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


def _this_window() -> int:
    return int(time.time() // WINDOW_S)


def _connect(url: str) -> Redis:
    try:
        return Redis.from_url(
            url, decode_responses=True, socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
        )
    except ValueError as error:
        raise ConfigurationError(f"REDIS_URL cannot be used: {error}") from None
