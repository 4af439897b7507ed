"""Several worker processes on one port: shared work, a death that nobody notices, and one end for all."""

import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import Tidemark, run_tidemark, serve_tidemark

HISTORY = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0], "detector": "mean_std"}
POINT = {"timestamp": 5, "value": 10.2}
SOON_S = 20.0


class Try(NamedTuple):
    """A request over a connection of its own."""

    started_s: float
    is_good: bool


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service of two workers on the embedded database."""
    with serve_tidemark(tmp_path_factory.mktemp("pair"), {"WORKERS": "2"}) as running:
        yield running


def workers(server: Tidemark) -> list[psutil.Process]:
    """The processes that serve."""
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def soon(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.05)


def post(url: str, path: str, body: object) -> dict[str, Any]:
    """Over a connection of its own. Raises OSError or HTTPException when it breaks."""
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        assert answer.status == 200
        return cast("dict[str, Any]", json.load(answer))


def send(url: str, path: str, body: object) -> Try:
    started_s = time.monotonic()
    try:
        post(url, path, body)
    except (OSError, HTTPException):
        return Try(started_s, is_good=False)
    return Try(started_s, is_good=True)


def metric(server: Tidemark, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    families = text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_every_worker_takes_requests_of_the_one_port(pair: Tidemark) -> None:
    post(pair.url, "/fit/shared", HISTORY)
    before = {worker.pid: worker.cpu_times().user for worker in workers(pair)}
    assert len(before) == 2

    def both_worked() -> bool:
        with ThreadPoolExecutor(16) as pool:
            assert all(
                attempt.is_good for attempt in pool.map(lambda _: send(pair.url, "/predict/shared", POINT), range(100))
            )
        return all(worker.cpu_times().user > before[worker.pid] for worker in workers(pair))

    soon(both_worked)


def test_metrics_are_those_of_all_workers_together(pair: Tidemark) -> None:
    post(pair.url, "/fit/counted", HISTORY)
    of_predictions = {"route": "/predict/{series_id}", "status": "200"}
    before = metric(pair, "tidemark_requests_total", **of_predictions)
    with ThreadPoolExecutor(8) as pool:
        tries = list(pool.map(lambda _: send(pair.url, "/predict/counted", POINT), range(200)))
    assert all(attempt.is_good for attempt in tries)
    assert metric(pair, "tidemark_requests_total", **of_predictions) == before + 200
    assert metric(pair, "tidemark_workers") == 2
    resident = sum(worker.memory_info().rss for worker in workers(pair))
    assert metric(pair, "process_resident_memory_bytes") == pytest.approx(resident, rel=0.3)
    soon(lambda: metric(pair, "tidemark_model_cache_models") >= 1)


def test_versions_of_one_series_are_numbered_without_a_gap_by_all_workers(pair: Tidemark) -> None:
    def fit(number: int) -> str:
        body = HISTORY | {"values": [1.0, 2.0, 3.0, float(number)]}
        return str(post(pair.url, "/fit/numbered", body)["version"])

    with ThreadPoolExecutor(8) as pool:
        versions = sorted(map(int, pool.map(fit, range(40))))
    assert versions == list(range(1, 41))

    def latest() -> set[str]:
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda _: post(pair.url, "/predict/numbered", POINT), range(16))
            return {str(answer["model_version"]) for answer in answers}

    soon(lambda: latest() == {"40"})


def test_a_worker_that_is_killed_fails_no_new_connection_and_is_replaced(pair: Tidemark) -> None:
    post(pair.url, "/fit/killed", HISTORY)
    victim, other = workers(pair)
    ends_s = time.monotonic() + 4

    def keep_sending(_: int) -> list[Try]:
        tries = []
        while time.monotonic() < ends_s:
            tries.append(send(pair.url, "/predict/killed", POINT))
        return tries

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(keep_sending, number) for number in range(8)]
        time.sleep(1)
        counted = metric(pair, "tidemark_requests_total")
        victim.kill()
        victim.wait(5)
        gone_s = time.monotonic()
        tries = [attempt for future in running for attempt in future.result()]
    after = [attempt for attempt in tries if attempt.started_s > gone_s]
    assert len(after) > 50
    assert all(attempt.is_good for attempt in after)
    soon(lambda: len(workers(pair)) == 2 and metric(pair, "tidemark_workers") == 2)
    assert other.pid in {worker.pid for worker in workers(pair)}
    assert re.search(rf"worker died, another one is started.*pid={victim.pid}", pair.log.read_text())
    assert metric(pair, "tidemark_requests_total") >= counted


def test_sigterm_ends_all_of_them(tmp_path: Path) -> None:
    settings = {"WORKERS": "2", "TMPDIR": str(tmp_path)}
    with serve_tidemark(tmp_path, settings) as server:
        processes = workers(server)
        post(server.url, "/fit/s", HISTORY)
        assert list(tmp_path.glob("tidemark-metrics-*"))
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert time.monotonic() - started < 10
        assert not any(process.is_running() for process in processes)
        assert "Traceback" not in server.log.read_text()
        assert server.process.stdout is not None
        assert "is ready" not in server.process.stdout.read(), "once was enough"
    assert not list(tmp_path.glob("tidemark-metrics-*"))


def test_workers_end_when_the_process_that_watches_them_is_killed(tmp_path: Path) -> None:
    with serve_tidemark(tmp_path, {"WORKERS": "2", "TMPDIR": str(tmp_path)}) as server:
        processes = workers(server)
        server.process.kill()
        assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_what_keeps_workers_from_serving_is_said_once(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for settings, names in (
            ({"PORT": str(port)}, f"PORT {port}"),
            ({"REDIS_URL": "carrier://pigeon"}, "REDIS_URL"),
        ):
            ended = run_tidemark(tmp_path, "serve", "--workers", "2", settings=settings, timeout_s=20)
            assert ended.returncode == 1
            assert ended.stderr.count(names) == 1
            assert "Traceback" not in ended.stderr
    assert not [folder for folder in tmp_path.iterdir() if folder.name.startswith("tidemark-metrics")]
