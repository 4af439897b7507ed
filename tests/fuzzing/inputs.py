"""Seeds, changed at random: what is near to valid reaches further than noise."""

import random
import re
from collections.abc import Callable, Sequence

LONGEST = 1_500
_MOST_CHANGES = 4
_POOL = 400
_NUMBER = re.compile(rb"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")

NUMBERS = (
    b"0 -0 -0.0 1 -1 1e999 -1e999 1e308 1.8e308 5e-324 2.5e-324 0.1 1E400 9007199254740993 9223372036854775807 "
    b"9223372036854775808 18446744073709551616 1" + b"0" * 400 + b" " + b"9" * 4_400 + b" 1e-400 NaN Infinity "
    b"-Infinity nan inf 0x10 1_000 +1 .5 1. 01 253402300799 253402300800 1e12 true false null"
).split()
TEXTS = (
    b'""', b'"\\ud800"', b'"\\u0000"', b'"\xf0\x9f\x92\xa9"', b'"latest"', b'"@prod"', b'"v3"', b'"-1"', b'"1e3"',
    b'"NaN"', b'"2024-01-11T19:06:40Z"', b'"2024-01-11t19:06:40.123456789+02:00"', b'"2024-02-30T00:00:00Z"',
    b'"0000-01-01T00:00:00Z"', b'"9999-12-31T23:59:59.999999999Z"', b'"2016-12-31T23:59:60Z"',
    b'"2024-01-11T19:06:40+99:99"', b'"2024-01-11T24:00:00Z"', b'"2024-01-11 19:06:40-00:00"',
    b'"1969-12-31T23:59:59Z"', b'"9999-12-31T23:59:59-23:59"',
)  # fmt: skip
BYTES = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b\x08", b"PAR1", b"\xff\xff\xff\xff", b"\n",
    b"\r\n", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"\xed\xa0\x80",
    b"\xc0\x80",
)  # fmt: skip
JSON = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"[]", b"{}", b"[[1]]", b'"timestamps":', b'"values":', b'"timestamp":',
    b'"value":', b'"context":', b'"detector":', b'"params":', b'"series_id":', b'"version":', b'"k":', b'"mean_std"',
    b'"auto"', b'"direction":', b'"seed":', b'"a/b~c":', b"[" * 1_100, b'{"a":' * 1_100, b"[" * 3_000 + b"NaN",
)  # fmt: skip
QUERY = (
    b"version=", b"&", b"=", b"%", b"%00", b"%ff", b"%40prod", b"+", b";", b"latest", b"false_alarm_rate=",
    b"max_false_alarms_per_week=", b"lookahead_points=", b"100000", b"detector=", b"params=", b"%7B%22k%22%3A3%7D",
    b"1e-3", b"0.001", b"1_0", b"\xd9\xa1", b"%D9%A1", b"start=", b"end=", b"max_points=", b"cursor=", b"limit=",
)  # fmt: skip
HTTP = (
    b"GET ", b"POST ", b"PUT ", b"DELETE ", b"HEAD ", b"PATCH ", b"OPTIONS ", b"/fit/", b"/predict/", b"/detect",
    b"/series/", b"/versions/", b"/aliases/", b"/plot", b"/plot/data", b"/..", b"//", b"/%2e%2e", b"%2F", b"?", b"s1",
    b"\n", b"\nContent-Type: application/json", b"\nContent-Type: application/x-ndjson",
    b"\nAccept: application/json", b"\nContent-Type: application/vnd.apache.arrow.stream",
    b"\nAccept: application/vnd.apache.arrow.stream", b"\nContent-Type: application/vnd.apache.parquet",
    b'\nIf-Match: "1"', b"\nIf-Match: *", b"\nIf-None-Match: *", b"\nIdempotency-Key: k1", b"\nIdempotency-Key: \xff",
    b"\nOrigin: null", b"\nContent-Length: 99999999999999999999", b"\nAccept-Encoding: gzip", b"\nRange: bytes=0-",
    b"\n\n",
)  # fmt: skip
KEYS = (
    b"\nX-API-Key: tm_", b"\nAuthorization: Bearer tm_0123456789ab_", b"\nAuthorization: Basic ", b"\nAuthorization: ",
    b"\nCookie: tidemark_session=.9999999999.", b"\nCookie: ", b"/livez", b"/sign-in", b"/docs/..", b"/static/", b"/./",
    b"\nX-Forwarded-Host: localhost", b"\nX-HTTP-Method-Override: GET", b"\nAccept: text/html",
)  # fmt: skip


class Mutations:
    """Inputs without end, the same for the same seed; `learn` keeps those that led somewhere new."""

    def __init__(self, seeds: Sequence[bytes], tokens: Sequence[bytes], seed: int) -> None:
        self._chance = random.Random(seed)
        self._pool = list(seeds) or [b""]
        self._first = len(self._pool)
        self._tokens = [*tokens, *BYTES, *NUMBERS]
        self._changes: tuple[Callable[[bytes], bytes], ...] = (
            *(self._insert, self._insert, self._replace, self._flip, self._delete),
            *(self._repeat, self._cut, self._splice, self._renumber, self._renumber),
        )

    def next(self) -> bytes:
        """Another input."""
        data = self._chance.choice(self._pool)
        for _ in range(self._chance.randint(1, _MOST_CHANGES)):
            data = self._chance.choice(self._changes)(data)
        return data[:LONGEST] if self._chance.random() < 0.99 else data

    def learn(self, data: bytes) -> None:
        """Mutate this one too."""
        if len(self._pool) < _POOL:
            self._pool.append(data)
        else:
            self._pool[self._chance.randrange(self._first, _POOL) if self._first < _POOL else 0] = data

    def _span(self, data: bytes) -> tuple[int, int]:
        start = self._chance.randint(0, len(data))
        return start, min(start + self._chance.choice((0, 1, 1, 2, 4, 8, 30)), len(data))

    def _insert(self, data: bytes) -> bytes:
        start, _ = self._span(data)
        return data[:start] + self._chance.choice(self._tokens) + data[start:]

    def _replace(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + self._chance.choice(self._tokens) + data[end:]

    def _flip(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + bytes(byte ^ 1 << self._chance.randrange(8) for byte in data[start:end]) + data[end:]

    def _delete(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[end:]

    def _repeat(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:end] + data[start:end] * self._chance.choice((1, 2, 50)) + data[end:]

    def _cut(self, data: bytes) -> bytes:
        start, _ = self._span(data)
        return data[:start] if self._chance.random() < 0.7 else data[start:]

    def _splice(self, data: bytes) -> bytes:
        other = self._chance.choice(self._pool)
        return data[: self._span(data)[0]] + other[self._span(other)[0] :]

    def _renumber(self, data: bytes) -> bytes:
        found = list(_NUMBER.finditer(data))
        if not found:
            return self._insert(data)
        chosen = self._chance.choice(found)
        number = self._chance.choice(NUMBERS) if self._chance.random() < 0.6 else self._chance.choice(TEXTS)
        return data[: chosen.start()] + number + data[chosen.end() :]
