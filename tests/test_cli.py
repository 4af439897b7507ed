"""The command line: clear messages, exit statuses, and no traceback."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app import __version__
from tests.servers import Tidemark, free_port, run_tidemark


def fails_with(ended: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert ended.returncode != 0
    assert ended.returncode != -signal.SIGKILL
    said = ended.stderr
    assert "Traceback" not in said
    assert 'File "' not in said
    assert len(said) < 1500
    for part in parts:
        assert part in " ".join(said.split()), said


def test_serve_on_a_busy_port_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run_tidemark(tmp_path, "serve", "--port", str(port), settings={}, timeout_s=20)
    fails_with(ended, str(port), "in use")
    assert "is ready" not in ended.stdout


def test_serve_on_an_address_that_is_not_of_this_machine_says_so(tmp_path: Path) -> None:
    fails_with(run_tidemark(tmp_path, "serve", "--host", "192.0.2.1", settings={}, timeout_s=20), "192.0.2.1")


def test_every_bad_setting_is_named_at_once(tmp_path: Path) -> None:
    settings = {"PORT": "99999", "LATENCY_HISTORY_LIMIT": "0", "LOG_LEVEL": "loud", "MAX_POINTS": "many"}
    ended = run_tidemark(tmp_path, "migrate", settings=settings)
    fails_with(ended, *settings, "'loud'", ".env.example")
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"DATABASE_URL": "mysql://host/name"}, ["DATABASE_URL", "mysql"]),
        ({"DATABASE_URL": "nonsense"}, ["DATABASE_URL"]),
        ({"DATABASE_URL": "sqlite://"}, ["DATABASE_URL"]),
        ({"DATABASE_URL": "sqlite:///:memory:"}, ["DATABASE_URL"]),
        ({"REDIS_URL": "http://host"}, ["REDIS_URL"]),
        ({"MODEL_STATE_FOLDER": "ftp://host/folder"}, ["ftp://host/folder"]),
        ({"MODEL_STATE_FOLDER": "/dev/null/models"}, ["/dev/null/models"]),
        ({"DATA_DIR": "/dev/null"}, ["/dev/null"]),
    ],
    ids=str,
)
def test_serve_with_a_setting_that_cannot_be_used_says_which(
    tmp_path: Path, settings: dict[str, str], parts: list[str]
) -> None:
    fails_with(run_tidemark(tmp_path, "serve", settings=settings, timeout_s=20), *parts)


@pytest.mark.parametrize("command", ["migrate", "sweep"])
def test_an_unreachable_database_is_said_clearly(tmp_path: Path, command: str) -> None:
    url = f"postgresql://someone:secret@127.0.0.1:{free_port()}/tidemark"
    ended = run_tidemark(tmp_path, command, settings={"DATABASE_URL": url})
    fails_with(ended, "database", "refused")
    assert "secret" not in ended.stderr
    assert ended.returncode == 1


def test_a_file_that_is_no_database_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are notes, and no database at all. " * 100)
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path / 'notes.txt'}"}
    fails_with(run_tidemark(tmp_path, "migrate", settings=settings), "not a database")


def test_sweep_before_migrate_says_what_to_run(tmp_path: Path) -> None:
    fails_with(run_tidemark(tmp_path, "sweep", settings={}), "python -m app migrate")


def test_serve_starts_while_the_database_is_away(serve: Callable[..., Tidemark]) -> None:
    client = serve(DATABASE_URL=f"postgresql://someone:secret@127.0.0.1:{free_port()}/tidemark").client
    assert client.get("/livez").status_code == 200
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "secret" not in ready.text


def test_help_names_the_commands(tmp_path: Path) -> None:
    ended = run_tidemark(tmp_path, "--help", settings={})
    assert ended.returncode == 0
    for command in ("serve", "migrate", "sweep", "version"):
        assert command in ended.stdout


def test_version_prints_the_release(tmp_path: Path) -> None:
    assert run_tidemark(tmp_path, "version", settings={}).stdout == f"{__version__}\n"


def test_an_unknown_command_or_option_is_a_usage_error(tmp_path: Path) -> None:
    for arguments in (["fly"], ["sweep", "--grace-minutes", "0"]):
        assert run_tidemark(tmp_path, *arguments, settings={}).returncode == 2


def test_migrate_says_that_it_is_done(tmp_path: Path) -> None:
    ended = run_tidemark(tmp_path, "migrate", settings={})
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "The database schema is up to date.\n", "")


def test_settings_come_from_the_file_env_in_the_working_directory_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOG_LEVEL=loud\n")
    fails_with(run_tidemark(tmp_path, "migrate", settings={}), "LOG_LEVEL")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_cleanly(serve: Callable[..., Tidemark], number: signal.Signals) -> None:
    server = serve()
    server.client.post("/fit/s", json={"timestamps": [1, 2, 3], "values": [1, 2, 3]})
    started = time.monotonic()
    server.process.send_signal(number)
    server.process.wait(10)
    assert time.monotonic() - started < 10
    assert "Traceback" not in server.log.read_text()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))


def test_a_request_that_is_being_received_is_answered_before_sigterm_ends_the_server(
    serve: Callable[..., Tidemark],
) -> None:
    server = serve()
    body = json.dumps({"timestamps": [1, 2, 3], "values": [1, 2, 3]}).encode()
    head = f"POST /fit/s HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(head + body[:10])
        time.sleep(0.3)
        server.process.terminate()
        time.sleep(0.3)
        connection.sendall(body[10:])
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
    server.process.wait(10)
