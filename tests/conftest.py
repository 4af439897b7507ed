"""Fixtures: real PostgreSQL, Redis and Tidemark servers, shared by the tests of one worker.

Tests that share a server keep apart by the names of their series: `series_id` gives a new one to each.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from app.artifacts import open_store
from app.artifacts.base import ArtifactStore, ContentStore
from app.bootstrap import Services, build
from app.config import Settings
from app.db import Database
from app.migrations import migrate
from tests.servers import RedisServer, S3Server, Tidemark, create_database, serve_tidemark, start_postgres

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.browsing import Watched

BACKENDS = ("postgres", "sqlite")
STORES = ("local", "s3", "memory")
CHROMIUM = shutil.which("chromium")

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server(testrun_uid: str) -> str:
    """URL of a PostgreSQL server, one for all workers of the run."""
    # Not among pytest's own folders, which a server that runs as another user cannot always enter.
    return start_postgres(Path(tempfile.gettempdir()) / f"tidemark-postgres-{testrun_uid}")


@pytest.fixture(scope="session")
def postgres_url(postgres_server: str, worker_id: str) -> str:
    """URL of this worker's own database, made by Alembic."""
    url = create_database(postgres_server, f"tidemark_{worker_id}")
    database = Database(url, timeout_s=10)
    migrate(database)
    database.close()
    return url


@pytest.fixture
def new_postgres_url(postgres_server: str, worker_id: str) -> str:
    """URL of a database that is new and empty, without tables, for one test."""
    return create_database(postgres_server, f"tidemark_{worker_id}_{next(_numbers)}")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server of this worker; a test that stops it makes its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session", params=BACKENDS)
def tidemark(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A running service of this worker, on PostgreSQL with Redis, then on SQLite with neither."""
    settings = {}
    if request.param == "postgres":
        settings["DATABASE_URL"] = request.getfixturevalue("postgres_url")
        settings["REDIS_URL"] = request.getfixturevalue("redis_server").url
    with serve_tidemark(tmp_path_factory.mktemp(f"tidemark-{request.param}"), settings) as running:
        yield running


@pytest.fixture
def client(tidemark: Tidemark) -> httpx.Client:
    """HTTP to the running service."""
    return tidemark.client


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A browser, for the tests of a file."""
    from tests.browsing import open_browser

    with open_browser() as browser:
        yield browser


@pytest.fixture
def watched(browser: "Browser", tidemark: Tidemark) -> "Iterator[Watched]":
    """A page that reaches nothing but the service; fails the test when it tries, or logs an error."""
    from tests.browsing import watch

    with watch(browser, tidemark) as watched:
        yield watched


@pytest.fixture
def series_id() -> str:
    """A name that no other test uses."""
    return f"series.{os.getpid()}.{next(_numbers)}"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Tidemark]]:
    """Starts services of the test's own: `serve(NAME="value")`; they share the folder tmp_path/"data"."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serve_tidemark(tmp_path, settings))


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with empty tables, on PostgreSQL and then on SQLite."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'tidemark.db'}"
    else:
        url = request.getfixturevalue("new_postgres_url")
    database = Database(url, timeout_s=10)
    migrate(database)
    database.close()
    return url


@pytest.fixture
def build_services(tmp_path: Path) -> Iterator[Callable[..., Services]]:
    """Builds services in this process: `build_services(database_url=...)`, with artifacts under tmp_path."""
    with ExitStack() as stack:

        def make(**settings: object) -> Services:
            services = build(Settings(_env_file=None, data_dir=tmp_path / "data", **settings))
            stack.callback(services.close)
            return services

        yield make


@pytest.fixture
def services(build_services: Callable[..., Services], database_url: str) -> Services:
    """Services on an empty database, on PostgreSQL and then on SQLite."""
    return build_services(database_url=database_url)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server of this worker."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The same, with its address and credentials in the environment of this process."""
    for name, value in s3_server.settings.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=STORES)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is stored yet, on each member of the family."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://tidemark/{tmp_path.name}"
    return "memory:///" if request.param == "memory" else str(tmp_path / "artifacts")


@pytest.fixture
def store(location: str) -> ArtifactStore:
    """An empty store, on each member of the family."""
    return open_store(location)


@pytest.fixture
def content(store: ArtifactStore, location: str) -> ContentStore:
    """Content addresses over an empty store, on each member of the family."""
    return ContentStore(store, location, ".bin", ".pack")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: tests that start servers wait a good part of their time."""
    return (os.cpu_count() or 1) + 1


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in the last line of the run what was not real."""
    if hasattr(config, "workerinput"):
        return
    missing = []
    if not RedisServer.is_real:
        missing.append(
            "no redis-server on the PATH: Redis was a fake that speaks the protocol over TCP, and was not frozen"
        )
    if shutil.which("curl") is None:
        missing.append("no curl on the PATH: the commands of the documents did not run")
    if shutil.which("redis-cli") is None:
        missing.append("no redis-cli on the PATH: the healthcheck of Redis's container did not run")
    if CHROMIUM is None:
        missing.append("no chromium on the PATH: the browser tests did not run")
    if missing:
        print("; ".join(missing))
