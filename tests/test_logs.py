"""Lines of the log: one an event whatever a client sends, each about a request with its id; all are documented."""

import ast
import json
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import REPOSITORY, Tidemark, serve_tidemark

FOUR_POINTS = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0], "detector": "mean_std"}
POINT = {"timestamp": 5, "value": 13.0}
HOSTILE = 'x\r\n2026-01-01 [error] forged\n{"event": "forged"}\x1b[31m\x00\x9b\u2028\u202e\x7f'
SECRETS = {"Authorization": "Bearer hunter2", "Cookie": "session=hunter2", "X-API-Key": "hunter2"}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def lines(running: Tidemark, event: str | None = None) -> list[dict[str, Any]]:
    """Of a log as JSON, each a line."""
    found = [json.loads(line) for line in running.log.read_text().split("\n") if line]
    return [line for line in found if event in {None, line["event"]}]


def wait_for(running: Tidemark, event: str, count: int = 1) -> list[dict[str, Any]]:
    """The lines of this event, which may be written a moment after the answer was sent."""
    deadline = time.monotonic() + 10
    while len(found := lines(running, event)) < count:
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.02)
    return found


def send_raw(running: Tidemark, head: str) -> bytes:
    """What an HTTP library would not send."""
    url = httpx.URL(running.url)
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.sendall(head.encode("latin-1", "replace") + b"\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    return answer


def break_a_version(running: Tidemark, folder: Path, series_id: str) -> None:
    """As no release of ours would write it: what reads it fails unexpectedly."""
    running.client.post(f"/fit/{series_id}", json=FOUR_POINTS).raise_for_status()
    with sqlite3.connect(folder / "data" / "tidemark.db", timeout=20) as connection:
        connection.execute("UPDATE versions SET libraries = ?", (json.dumps(HOSTILE),))
    connection.close()


@pytest.fixture(scope="module")
def logging_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service that logs every request, as JSON."""
    settings = {"LOG_REQUESTS": "all", "LOG_FORMAT": "json"}
    with serve_tidemark(tmp_path_factory.mktemp("logs"), settings) as running:
        yield running


# ---- ids -----------------------------------------------------------------------------------------------------


def test_a_request_keeps_the_id_that_its_client_gave_it(logging_all: Tidemark, series_id: str) -> None:
    before = len(lines(logging_all, "request"))
    headers = {"X-Request-ID": f"trace.{series_id}-1_A"}
    answer = logging_all.client.post(f"/predict/{series_id}", json=POINT, headers=headers)
    assert answer.headers["X-Request-ID"] == headers["X-Request-ID"]
    assert answer.json()["request_id"] == headers["X-Request-ID"]
    logged = wait_for(logging_all, "request", before + 1)[-1]
    assert (logged["request_id"], logged["series_id"]) == (headers["X-Request-ID"], series_id)


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "é", "a,b", "<script>", "a/b", "a\tb", None])
def test_any_other_request_gets_a_new_id(logging_all: Tidemark, sent: str | None) -> None:
    before = len(lines(logging_all, "request"))
    headers = {} if sent is None else {b"X-Request-ID": sent.encode()}
    answers = [logging_all.client.get("/livez", headers=headers) for _ in range(3)]
    given = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(given) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in given)
    assert given == {line["request_id"] for line in wait_for(logging_all, "request", before + 3)[before:]}


def test_the_lines_of_requests_at_the_same_time_name_each_its_own(serve: Callable[..., Tidemark]) -> None:
    """Pipelined on one connection too, where a request begins in the task of the one before it."""
    running = serve(LOG_REQUESTS="all", LOG_FORMAT="json")
    head = "GET /series/{} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {}\r\n"
    first, *rest = [head.format(f"s{n}", f"id{n}") for n in range(20)]
    send_raw(running, "\r\n".join([first, *rest]).rstrip("\r\n"))
    logged = wait_for(running, "request", 20)
    assert [(line["series_id"], line["request_id"]) for line in logged] == [(f"s{n}", f"id{n}") for n in range(20)]


def test_what_a_thread_of_the_pool_logs_names_the_request_that_it_serves(
    serve: Callable[..., Tidemark], tmp_path: Path
) -> None:
    running = serve(LOG_FORMAT="json")
    break_a_version(running, tmp_path, "broken")
    answer = running.client.get("/series/broken/versions/1", headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.json()["request_id"]) == (500, "mine")
    assert answer.headers["Connection"] == "close", "the server hangs up then, and another request would be lost"
    wait_for(running, "Exception in ASGI application")
    told = {line["event"]: line for line in lines(running)}
    assert set(told) == {"request failed unexpectedly", "request", "Exception in ASGI application"}
    assert {line["request_id"] for line in told.values()} == {"mine"}
    assert {line["series_id"] for line in told.values()} == {"broken"}
    assert "Traceback" in told["Exception in ASGI application"]["exception"]
    assert told["request"]["level"] == "warning"
    assert told["request"]["status"] == 500


# ---- requests ------------------------------------------------------------------------------------------------


def test_every_request_has_a_line_also_of_the_fast_lane(logging_all: Tidemark, series_id: str) -> None:
    client = logging_all.client
    before = len(lines(logging_all, "request"))
    client.post(f"/fit/{series_id}", json=FOUR_POINTS)
    for _ in range(3):  # the first is of a cold model
        client.post(f"/predict/{series_id}?version=1", json=POINT, headers=SECRETS)
    client.get("/nowhere%20at/all?secret=hunter2")
    client.put("/healthcheck")
    logged = wait_for(logging_all, "request", before + 6)[before:]
    assert [(line["method"], line["route"], line["status"]) for line in logged] == [
        ("POST", "/fit/{series_id}", 200),
        *[("POST", "/predict/{series_id}", 200)] * 3,
        ("GET", "(unmatched)", 404),
        ("PUT", "/healthcheck", 405),
    ]
    assert [line.get("series_id") for line in logged] == [series_id] * 4 + [None] * 2
    assert logged[4]["path"] == "/nowhere%20at/all"
    names = {"event", "level", "timestamp", "request_id", "method", "route", "path", "status", "duration_ms"}
    assert all(set(line) - {"series_id"} == names for line in logged)
    assert all(0 < line["duration_ms"] < 60_000 for line in logged)
    quick = [line for line in logged if line["duration_ms"] < 1000]  # not all, on a busy machine
    assert {line["level"] for line in quick} == {"info"}


def test_by_default_only_failures_and_slow_answers_have_a_line(serve: Callable[..., Tidemark], tmp_path: Path) -> None:
    running = serve(LOG_FORMAT="json")
    running.client.get("/nowhere")
    running.client.post("/fit/a", json={})
    database = tmp_path / "data" / "tidemark.db"
    with closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN EXCLUSIVE")  # whoever moves an alias now waits for us
        free = threading.Timer(1.3, connection.execute, ["COMMIT"])
        free.start()
        running.client.put("/series/a/aliases/b", json={"version": "1"})
        free.join()
    running.client.get("/series")
    break_a_version(running, tmp_path, "broken")
    running.client.get("/series/broken/versions/1")
    logged = wait_for(running, "request", 2)
    assert [(line["route"], line["status"]) for line in logged] == [
        ("/series/{series_id}/aliases/{name}", 404),
        ("/series/{series_id}/versions/{version}", 500),
    ]
    assert logged[0]["duration_ms"] > 1000


def test_none_means_none(serve: Callable[..., Tidemark], tmp_path: Path) -> None:
    running = serve(LOG_FORMAT="json", LOG_REQUESTS="none")
    break_a_version(running, tmp_path, "broken")
    running.client.get("/series/broken/versions/1")
    wait_for(running, "Exception in ASGI application")
    assert lines(running, "request") == []


# ---- what a client sends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_client_can_forge_a_line_or_speak_to_the_terminal(
    serve: Callable[..., Tidemark], tmp_path: Path, log_format: str
) -> None:
    running = serve(LOG_FORMAT=log_format, LOG_REQUESTS="all", LOG_LEVEL="debug")
    client = running.client
    sent = 0
    for path in ("/series/{}", "/predict/{}", "/{}", "/plot?series_id={}", "/static/{}/{}", "/?search={}"):
        for method in ("GET", "POST"):
            quoted = "".join(f"%{byte:02X}" for byte in HOSTILE.encode())
            client.request(method, path.format(quoted, quoted), json=POINT)
            sent += 1
    for name in ("X-Request-ID", "User-Agent", "Host", "Origin", "Cookie", "Idempotency-Key"):
        send_raw(running, f"GET /livez HTTP/1.1\r\nHost: x\r\n{name}: \x1b[31mforged\x85\x9b")
    send_raw(running, "\x1b[31m forged \x9b nothing of HTTP")
    break_a_version(running, tmp_path, "broken")
    client.get("/series/broken/versions/1")
    while "in ASGI application" not in (text := running.log.read_text()):
        time.sleep(0.02)
    assert "forged" not in re.sub(r"(\\|%)[^\n]*forged", "", text), "only within what is quoted"
    assert {c for c in text if not c.isprintable()} <= {"\n"}
    if log_format == "json":
        assert all(isinstance(json.loads(line), dict) for line in text.splitlines())
        assert len(lines(running, "request")) >= sent
    else:
        events, _, traceback = text.partition("Traceback")
        assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[\w+ *\] ", line) for line in events.splitlines())
        assert "Exception in ASGI application" in events.splitlines()[-1] or traceback == ""


def test_what_a_client_keeps_secret_is_in_no_line(serve: Callable[..., Tidemark], tmp_path: Path) -> None:
    running = serve(LOG_REQUESTS="all", LOG_LEVEL="debug")
    break_a_version(running, tmp_path, "broken")
    for method, path in (("GET", "/series/broken/versions/1"), ("POST", "/predict/s"), ("GET", "/nowhere")):
        body = json.dumps({"password": "hunter2"}) if method == "POST" else None
        running.client.request(method, f"{path}?token=hunter2", headers=SECRETS, content=body)
    while running.log.read_text().count(" request ") < 3:
        time.sleep(0.02)
    assert "hunter2" not in running.log.read_text()


def test_a_path_of_any_length_is_cut(logging_all: Tidemark) -> None:
    before = len(lines(logging_all, "request"))
    logging_all.client.get("/series/" + "x" * 20_000)
    line = wait_for(logging_all, "request", before + 1)[-1]
    assert (len(line["path"]), len(line["series_id"])) == (500, 200)


# ---- the catalogue -------------------------------------------------------------------------------------------


def logged_events() -> Iterator[tuple[str, str, set[str]]]:
    """Event, level and fields of each call that logs, anywhere in the application."""
    for path in sorted((REPOSITORY / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            outage = {word.arg: word.value for word in node.keywords if word.arg in {"failed", "recovered"}}
            for name, text in outage.items():
                if isinstance(text, ast.Constant):
                    yield text.value, *(("warning", {"reason"}) if name == "failed" else ("info", set()))
            if isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                logger = node.func.value
                if isinstance(logger, ast.Name) and logger.id == "log" and node.args:
                    text = node.args[0]
                    if isinstance(text, ast.Constant):
                        yield text.value, node.func.attr, {word.arg for word in node.keywords if word.arg}


def test_every_event_is_documented_with_its_level_and_fields() -> None:
    rows = {
        event: (level, fields)
        for event, level, fields in re.findall(
            r"^\| `([^`]+)` \|([^|]+)\|([^|]*)\|", (REPOSITORY / "docs" / "LOGS.md").read_text(), re.MULTILINE
        )
    }
    events = list(logged_events())
    assert {"request failed", "changes of other processes cannot be followed"} <= {event for event, _, _ in events}
    for event, level, fields in events:
        assert event in rows, f"docs/LOGS.md has no line for {event!r}"
        assert f"`{level}`" in rows[event][0], event
        missing = {field for field in fields - {"exc_info"} if f"`{field}`" not in rows[event][1]}
        assert missing == set(), event


def test_only_known_places_log_what_is_no_constant() -> None:
    """Else the test above would miss what they say."""
    found = []
    for path in sorted((REPOSITORY / "app").rglob("*.py")):
        text = path.read_text()
        if "log = structlog.get_logger()" not in text:
            assert not re.search(r"\b(structlog\.get_logger|logging\.getLogger\(__name__)", text), path
        found += [(path.name, call) for call in re.findall(r"\blog\.\w+\((?!\")([\w.]+)", text)]
    assert found == [("background.py", "self._failed"), ("background.py", "self._recovered")]
