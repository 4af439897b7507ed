"""Load from a second process: wrk with a body, and what it reports."""

import json
import re
import subprocess
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
local count = 0
request = function()
  count = count + 1
  local path = string.gsub(PATH, "{n}", tostring(count % SERIES))
  return wrk.format(nil, path, nil, (string.gsub(BODY, "{n}", tostring(count))))
end
"""


class Load(NamedTuple):
    """One run of wrk."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


def post(url: str, path: str, body: str, *, connections: int, seconds: float, folder: Path, series: int = 1) -> Load:
    """POST a JSON body over `connections` connections.

    `{n}` in `path` counts round 0 .. series - 1, and `{n}` in `body` is new in each request.
    Raises RuntimeError when any answer was not a success: a figure over failures would mean nothing.
    """
    script = folder / "post.lua"
    fixed = {"PATH": path, "BODY": body}
    constants = "".join(f"local {name} = {json.dumps(text)}\n" for name, text in fixed.items())
    script.write_text(f"{constants}local SERIES = {series}\n{_SETUP}{_REPORT}")
    command = ["wrk", f"-t{THREADS}", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report = json.loads(re.search(r"REPORT (.*)", output)[1])  # type: ignore[index]
    if report["errors"]:
        raise RuntimeError(f"{report['errors']} of {report['requests']} requests to {url}{path} failed")
    rate = report["requests"] / report["duration_us"] * 1e6
    return Load(rate, report["p50_us"] / 1000, report["p99_us"] / 1000)
