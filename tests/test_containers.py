"""Dockerfile and docker-compose.yml: what they would run is run here, on real servers, without a container engine."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import AF_UNIX, SHUT_WR, socket
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml

from app import __version__
from app.config import Settings
from tests.servers import REPOSITORY, RedisServer, free_port

SETTINGS = {name.upper() for name in Settings.model_fields}
INTERPOLATED = re.compile(r"\$\{(\w+):-([^}]*)\}")
FOUR_POINTS = {"timestamps": [1705000000, 1705000001, 1705000002, 1705000003], "values": [10.0, 10.5, 9.5, 10.0]}


class Instruction(NamedTuple):
    """One line of a Dockerfile, its continuations joined."""

    name: str
    text: str


def stages() -> list[list[Instruction]]:
    """The instructions of the Dockerfile, stage by stage."""
    joined = re.sub(
        r"\\\n", " ", re.sub(r"^#.*\n", "", REPOSITORY.joinpath("Dockerfile").read_text(), flags=re.MULTILINE)
    )
    found: list[list[Instruction]] = []
    for line in filter(str.strip, joined.splitlines()):
        name, _, text = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append(Instruction(name, text.strip()))
    return found


def last(name: str) -> str:
    """The text of the last instruction of this name in the final stage."""
    return [instruction.text for instruction in stages()[-1] if instruction.name == name][-1]


def image_environment() -> dict[str, str]:
    pairs = (pair.partition("=") for pair in shlex.split(last("ENV")))
    return {name: value for name, _, value in pairs}


def compose(**environment: str) -> dict:
    """The compose file, with the variables of this environment filled in."""
    text = REPOSITORY.joinpath("docker-compose.yml").read_text()
    return yaml.safe_load(INTERPOLATED.sub(lambda match: environment.get(match[1]) or match[2], text))


class Image(NamedTuple):
    """What the image holds, as a folder, and a way to run a command in it."""

    folder: Path

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        of_image = {name: value for name, value in image_environment().items() if name != "PATH"}
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder)} | of_image | dict(environment)

    def command(self, command: list[str]) -> list[str]:
        assert command[0] == "python"
        return [sys.executable, *command[1:]]

    def run(self, command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(command),
            cwd=self.folder,
            env=self.environment(environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @contextmanager
    def running(self, command: list[str], environment: Mapping[str, str]) -> Iterator[None]:
        process = subprocess.Popen(
            self.command(command),
            cwd=self.folder,
            env=self.environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert "is ready: " in process.stdout.readline()
            yield
        finally:
            process.terminate()
            process.communicate(timeout=20)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """What the Dockerfile copies, and nothing else of the repository."""
    folder = tmp_path / "image"
    folder.mkdir()
    for instruction in stages()[0]:
        if instruction.name == "COPY":
            source, target = instruction.text.split()
            if not target.startswith("/"):
                copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copy
                copy(REPOSITORY / source, folder / target if copy is shutil.copytree else folder)
    return Image(folder)


@pytest.fixture
def postgres_over_tcp(new_postgres_url: str) -> Iterator[dict[str, str]]:
    """The settings of an empty database whose server is reached over TCP, as between containers."""
    url = urlsplit(new_postgres_url)
    name = url.path.removeprefix("/")
    folder = parse_qs(url.query).get("host")
    if folder is None:
        yield settings_of_database(url.hostname or "127.0.0.1", url.port or 5432, name, url.username or "postgres")
        return
    with forwarding_to(f"{folder[0]}/.s.PGSQL.5432") as port:
        yield settings_of_database("127.0.0.1", port, name, url.username or "postgres")


def settings_of_database(host: str, port: int, name: str, user: str) -> dict[str, str]:
    return {"DATABASE_HOST": host, "DATABASE_PORT": str(port), "DATABASE_NAME": name, "DATABASE_USER": user}


class Forwarder(ThreadingTCPServer):
    """A TCP port of this machine, with the socket of a file behind it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, unix_socket: str) -> None:
        super().__init__(("127.0.0.1", 0), BaseRequestHandler)
        self._unix_socket = unix_socket

    def finish_request(self, request: socket, _: object) -> None:
        with socket(AF_UNIX) as far:
            far.connect(self._unix_socket)
            threading.Thread(target=pump, args=(far, request), daemon=True).start()
            pump(request, far)


def pump(source: socket, target: socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(SHUT_WR)


@contextmanager
def forwarding_to(unix_socket: str) -> Iterator[int]:
    """The TCP port of a Forwarder that runs."""
    with Forwarder(unix_socket) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def test_every_name_in_the_files_is_a_setting() -> None:
    of_others = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "NUMBA_CACHE_DIR"}
    assert image_environment().keys() - of_others <= SETTINGS
    assert {"PYTHONUNBUFFERED", "HOST", "PORT", "DATA_DIR"} <= image_environment().keys()
    services = compose()["services"]
    for name in ("api", "migrate"):
        assert services[name]["environment"].keys() <= SETTINGS
    interpolated = INTERPOLATED.findall(REPOSITORY.joinpath("docker-compose.yml").read_text())
    assert {name for name, _ in interpolated} <= SETTINGS


def test_the_image_runs_as_a_plain_user_on_all_addresses() -> None:
    assert last("USER").partition(":")[0] not in {"", "0", "root"}
    assert image_environment()["HOST"] == "0.0.0.0"
    assert last("VOLUME") == image_environment()["DATA_DIR"] == "/data"
    assert last("EXPOSE") == image_environment()["PORT"]
    assert json.loads(last("CMD")) == ["python", "-m", "app", "serve"]
    bases = [stage[0].text.split()[0] for stage in stages()]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)


def test_the_build_gets_what_it_copies_and_nothing_that_is_private() -> None:
    lines = REPOSITORY.joinpath(".dockerignore").read_text().splitlines()
    assert "*" in lines  # everything is out but for what follows
    admitted = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {i.text.split()[0] for i in stages()[0] if i.name == "COPY"}
    assert copied == admitted


def test_the_healthcheck_and_the_command_of_the_image_work_without_any_server(image: Image, tmp_path: Path) -> None:
    environment = {"HOST": "127.0.0.1", "PORT": str(free_port()), "DATA_DIR": str(tmp_path / "volume")}
    check = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert image.run(check, environment).returncode != 0
    with image.running(json.loads(last("CMD")), environment):
        assert image.run(check, environment).returncode == 0
        with httpx.Client(base_url=f"http://127.0.0.1:{environment['PORT']}") as client:
            assert client.post("/fit/sensor_01", json=FOUR_POINTS).json()["version"] == "1"
            page = client.get("/plot", params={"series_id": "sensor_01"}, headers={"Accept": "text/html"})
            assert page.status_code == 200
    assert {path.name for path in (tmp_path / "volume").iterdir()} >= {"tidemark.db", "models", "training"}


def test_the_commands_of_compose_work_on_postgresql_and_redis(
    image: Image, tmp_path: Path, postgres_over_tcp: dict[str, str], redis_server: RedisServer
) -> None:
    file = compose(DATABASE_NAME=postgres_over_tcp["DATABASE_NAME"], DATABASE_USER=postgres_over_tcp["DATABASE_USER"])
    api, migrate = file["services"]["api"], file["services"]["migrate"]
    assert api["environment"] == migrate["environment"]
    assert image_environment().keys() | api["environment"].keys() >= {"HOST", "PORT", "DATA_DIR", "REDIS_URL"}
    of_this_machine = {
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "DATA_DIR": str(tmp_path / "volume"),
        "DATABASE_HOST": postgres_over_tcp["DATABASE_HOST"],
        "DATABASE_PORT": postgres_over_tcp["DATABASE_PORT"],
        "REDIS_URL": redis_server.url,
    }
    environment = api["environment"] | of_this_machine
    assert environment["DATABASE_PASSWORD"] == "tidemark"
    with httpx.Client(base_url=f"http://127.0.0.1:{environment['PORT']}") as client:
        with image.running(api["command"], environment):
            unready = client.get("/readyz")
            assert unready.status_code == 503
            assert "python -m app migrate" in unready.json()["checks"]["database"]
        for _ in range(2):  # as at each `docker compose up`
            migrated = image.run(migrate["command"], environment)
            assert migrated.returncode == 0, migrated.stderr
        with image.running(api["command"], environment):
            assert client.get("/readyz").json()["status"] == "ready"
            assert client.post("/fit/sensor_01", json=FOUR_POINTS).json()["version"] == "1"
            assert client.get("/healthcheck").json()["series_trained"] == 1
    assert not (tmp_path / "volume" / "tidemark.db").exists()


def test_migrate_says_what_is_wrong_and_fails_when_there_is_no_database(image: Image, tmp_path: Path) -> None:
    environment = compose()["services"]["migrate"]["environment"]
    away = {"DATABASE_HOST": "127.0.0.1", "DATABASE_PORT": str(free_port()), "DATA_DIR": str(tmp_path)}
    migrated = image.run(compose()["services"]["migrate"]["command"], environment | away)
    assert migrated.returncode == 1
    assert "The database cannot be reached" in migrated.stderr


def test_compose_starts_in_order_and_waits() -> None:
    services = compose()["services"]
    assert services["api"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["api"]["depends_on"]["redis"]["condition"] == "service_healthy"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("postgres", "redis"):
        assert services[name]["healthcheck"]["test"]
        assert re.fullmatch(rf"{name}:\d+\.\d+(\.\d+)?-alpine", services[name]["image"])
    assert services["migrate"]["restart"] == "no"
    assert {services[name]["restart"] for name in ("api", "postgres", "redis")} == {"unless-stopped"}
    assert services["api"]["image"] == f"tidemark:{__version__}"


def test_compose_lets_only_this_machine_in() -> None:
    services = compose()["services"]
    assert services["api"]["ports"] == ["127.0.0.1:8000:8000"]
    assert compose(PORT="9000")["services"]["api"]["ports"] == ["127.0.0.1:9000:8000"]
    assert [name for name in services if "ports" in services[name]] == ["api"]
    assert all("no-new-privileges:true" in service["security_opt"] for service in services.values())
    assert services["api"]["read_only"]


def test_compose_connects_the_services_by_their_names() -> None:
    file = compose(DATABASE_PASSWORD="secret", DATABASE_USER="me", DATABASE_NAME="mine")
    services, environment = file["services"], file["services"]["api"]["environment"]
    assert {environment["DATABASE_HOST"], urlsplit(environment["REDIS_URL"]).hostname} < services.keys()
    assert services["postgres"]["environment"] == {
        "POSTGRES_DB": environment["DATABASE_NAME"],
        "POSTGRES_USER": environment["DATABASE_USER"],
        "POSTGRES_PASSWORD": environment["DATABASE_PASSWORD"],
    }
    assert environment["DATABASE_PASSWORD"] == "secret"
    volumes = [volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", ())]
    assert set(volumes) == file["volumes"].keys()


@pytest.mark.skipif(not RedisServer.is_real, reason="there is no redis-server on the PATH")
@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="there is no redis-cli on the PATH")
def test_the_commands_of_the_redis_container_work(tmp_path: Path) -> None:
    redis, port = compose()["services"]["redis"], free_port()
    process = subprocess.Popen([*redis["command"], "--port", str(port)], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        kind, *check = redis["healthcheck"]["test"]
        assert kind == "CMD"
        for _ in range(100):
            answer = subprocess.run([*check[:1], "-p", str(port), *check[1:]], capture_output=True, check=False).stdout
            if answer == b"PONG\n":
                break
        assert answer == b"PONG\n"
    finally:
        process.terminate()
        process.wait(10)
    assert list(tmp_path.iterdir()) == []
