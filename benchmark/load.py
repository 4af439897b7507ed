"""Load from a second process: wrk with a body, and what it reports."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

THREADS = 1

_REPORT = """
done = function(summary, latency, requests)
  io.write(string.format("REPORT {\\"requests\\":%d,\\"duration_us\\":%d,\\"p50_us\\":%d,\\"p99_us\\":%d,"
    .. "\\"errors\\":%d}\\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout))
end
"""
_SETUP = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
math.randomseed(SEED)
local count = FIRST
request = function()
  count = count + 1
  local path = string.gsub(PATH, "{n}", string.format("%d", count * STRIDE % SERIES))
  path = string.gsub(path, "{random}", string.format("%d", math.random(0, SERIES - 1)))
  return wrk.format(nil, path, nil, (string.gsub(BODY, "{n}", tostring(count))))
end
"""


_SAME = """
wrk.method = "POST"
for name, value in pairs(HEADERS) do wrk.headers[name] = value end
local file = io.open(FILE, "rb")
wrk.body = file:read("*a")
file:close()
"""


class Load(NamedTuple):
    """One run of wrk."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    requests: float


def post(
    url: str,
    path: str,
    body: str,
    *,
    connections: int,
    seconds: float,
    folder: Path,
    series: int = 1,
    first: int = 0,
    stride: int = 1,
    seed: int = 1,
) -> Load:
    """POST a JSON body over `connections` connections.

    `{n}` in `path` counts round 0 .. series - 1 from `first` in steps of `stride`, `{random}` is one of the same,
    picked anew for each request, and `{n}` in `body` is new in each request.
    Raises RuntimeError when any answer was not a success: a figure over failures would mean nothing.
    """
    script = folder / "post.lua"
    fixed = {"PATH": path, "BODY": body, "SERIES": series, "FIRST": first, "STRIDE": stride, "SEED": seed}
    constants = "".join(f"local {name} = {json.dumps(constant)}\n" for name, constant in fixed.items())
    script.write_text(f"{constants}{_SETUP}{_REPORT}")
    return _run(url, path, script, connections, seconds)


def post_same(
    url: str, path: str, body: bytes, headers: Mapping[str, str], *, connections: int, seconds: float, folder: Path
) -> Load:
    """POST the same bytes again and again. Raises RuntimeError when any answer was not a success."""
    script, file = folder / "post.lua", folder / "body"
    file.write_bytes(body)
    table = ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
    script.write_text(f"local HEADERS = {{{table}}}\nlocal FILE = {json.dumps(str(file))}\n{_SAME}{_REPORT}")
    return _run(f"{url}{path}", path, script, connections, seconds)


def _run(url: str, path: str, script: Path, connections: int, seconds: float) -> Load:
    command = ["wrk", f"-t{THREADS}", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report = json.loads(re.search(r"REPORT (.*)", output)[1])  # type: ignore[index]
    if report["errors"]:
        raise RuntimeError(f"{report['errors']} of {report['requests']} requests to {url}{path} failed")
    rate = report["requests"] / report["duration_us"] * 1e6
    return Load(rate, report["p50_us"] / 1000, report["p99_us"] / 1000, report["requests"])
