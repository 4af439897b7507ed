"""What overload does to the service: far more than it can do, from a second process, and a table of what came of it.

`python -m benchmark.overload` takes some three minutes, and writes the table into benchmark/RESULTS.md.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmark.measures import say
from tests import attacks
from tests.attacks import answer_to, request_of, watch
from tests.servers import Tidemark, serve_tidemark
from tests.streaming import ARROW

RESULTS = Path(__file__).parent / "RESULTS.md"
TITLE = "## Overload"
TIMEOUT_S = 5
COLUMNS = ("sent", "came back", "memory before, peak", "slowest `/livez`, `/readyz`", "full speed again after")

Attack = Callable[[Tidemark], Mapping[str, int]]


class Row(NamedTuple):
    """What one attack did."""

    sent: str
    answers: str
    memory: str
    health: str
    recovery: str


def attack_by_wrk(path: str, body: str, connections: int) -> Attack:
    """For ten seconds as fast as it goes."""

    def attack(server: Tidemark) -> Mapping[str, int]:
        script = Path(server.log).parent / "attack.lua"
        script.write_text(f"{_WRK}".replace("BODY", json.dumps(body)))
        command = ["wrk", "-t1", f"-c{connections}", "-d10s", "--timeout", "30s", "-s", str(script)]
        output = subprocess.run([*command, f"{server.url}{path}"], check=True, capture_output=True, text=True).stdout
        counts = json.loads(re.search(r"REPORT (.*)", output)[1])  # type: ignore[index]
        return {status: count for status, count in counts.items() if count}

    return attack


_WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = BODY
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) good, refused, other = 0, 0, 0 end
function response(status)
  if status == 200 then good = good + 1 elseif status == 503 then refused = refused + 1 else other = other + 1 end
end
done = function(summary)
  local g, r, o = 0, 0, 0
  for _, t in ipairs(threads) do g = g + t:get("good"); r = r + t:get("refused"); o = o + t:get("other") end
  local e = summary.errors
  io.write(string.format('REPORT {"200":%d,"503":%d,"other":%d,"hung up":%d}\\n', g, r, o,
    e.connect + e.read + e.write + e.timeout))
end
"""


def attacks_of_the_programme() -> Iterator[tuple[str, Attack]]:
    """What is sent, and how."""
    point = attacks.POINT.decode()
    slow = {"timestamps": list(range(400)), "values": [i * i % 1009 / 7 for i in range(400)]}
    yield "predictions as fast as wrk can, 2,000 connections", attack_by_wrk("/predict/steady", point, 2000)
    yield "fits of 4 points likewise", attack_by_wrk("/fit/hot", json.dumps(attacks.HISTORY), 2000)
    yield (
        "fits by `auto` of 400 points likewise: 10 times and more what it can",
        attack_by_wrk("/fit/auto", json.dumps(slow), 2000),
    )
    body = attacks.large_fit()
    yield (
        "32 fits of 2,000,000 points at once, 58 MB each",
        lambda server: attacks.all_at_once(server, [request_of("POST", f"/fit/large{n}", body) for n in range(32)]),
    )
    yield "500 bodies that trickle in", lambda server: attacks.trickle(server, 500, "/fit/slow", 100_000, TIMEOUT_S * 4)
    for name, request in attacks.bombs().items():
        yield (
            f"8 at once: {name}, {len(request):,} bytes",
            lambda server, request=request: attacks.all_at_once(server, [request] * 8),
        )
    bomb = request_of("POST", "/detect", attacks.arrow_bomb(), ARROW)
    yield "compressed Arrow to `/detect`", lambda server: Counter([answer_to(server, bomb)])
    yield "5,000 connections that say nothing", _crowd


def _crowd(server: Tidemark) -> Mapping[str, int]:
    silent = attacks.crowd(server, 5000)
    status = answer_to(server, request_of("POST", "/predict/steady", attacks.POINT))
    for connection in silent:
        connection.close()
    return {f"{status} to a prediction among them": 1}


def measure(server: Tidemark, sent: str, attack: Attack) -> Row:
    """Attack, watching the health of the service, and then wait for its old rate."""
    before = attacks.rate(server, 1)
    started = time.monotonic()
    with watch(server) as watching:
        answers = attack(server)
    took_s = time.monotonic() - started
    recovery_s = attacks.seconds_until(lambda: attacks.rate(server, 0.5) >= 0.8 * before, limit_s=30)
    failures = f", {len(watching.failures)} failed" if watching.failures else ""
    return Row(
        f"{sent}; {took_s:.1f} s",
        ", ".join(f"{status}: {count:,}" for status, count in sorted(answers.items())),
        f"{watching.rss_before_mb:.0f} MB, {watching.rss_mb:.0f} MB",
        f"{watching.worst_s['/livez']:.2f} s, {watching.worst_s['/readyz']:.2f} s{failures}",
        f"{max(0.0, recovery_s - 0.5):.1f} s",
    )


def main() -> None:
    """Attack with everything, and write the table."""
    parser = argparse.ArgumentParser(description="Overload the service and see what it does.")
    parser.add_argument("--print", action="store_true", help="Print the table, and leave RESULTS.md as it is.")
    only_prints = parser.parse_args().print
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder,
        serve_tidemark(Path(folder), {"REQUEST_TIMEOUT_S": str(TIMEOUT_S), "WARM_UP": "on"}) as server,
    ):
        attacks.prepare(server)
        while "warmed up" not in server.log.read_text():
            time.sleep(0.1)
        with watch(server) as idle:
            time.sleep(3)
        rows = []
        for sent, attack in attacks_of_the_programme():
            rows.append(measure(server, sent, attack))
            say(f"    {' | '.join(rows[-1])}")
        report = _report(rows, idle.worst_s["/livez"], os.getloadavg()[1])
    print(report)
    if not only_prints:
        _write(report)


def _report(rows: list[Row], idle_s: float, load: float) -> str:
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows))
    note = (
        f"Made by `python -m benchmark.overload` on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores: one worker "
        f"on the embedded database, all limits as they are by default but REQUEST_TIMEOUT_S={TIMEOUT_S}. The attacks "
        "come from the same machine and take their part of it. It was used by others too: a load average of "
        f"{load:.0f} in the run, and an idle service answered `/livez` within {idle_s:.2f} s at worst. All four health "
        "endpoints are asked every 50 ms over new connections. Full speed is 0.8 of the rate of predictions over four "
        "connections just before."
    )
    return f"{TITLE}\n\n{table}\n\n{textwrap.fill(note, 120, break_on_hyphens=False)}\n"


def _write(report: str) -> None:
    text = RESULTS.read_text()
    before, _, rest = text.partition(TITLE)
    after = rest.partition("\n## ")
    following = f"\n## {after[2]}" if after[2] else ""
    RESULTS.write_text(f"{before.rstrip()}\n\n{report}{following}")


if __name__ == "__main__":
    main()
