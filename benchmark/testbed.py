"""What the service runs on while it is measured: PostgreSQL, Redis, data folders; and what it is compared with."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg2

from app.db import Database
from app.migrations import migrate
from tests.servers import PostgresServer, RedisServer, create_database, free_port


class Site(NamedTuple):
    """A database of its own, with a folder for the data: what a service is started on."""

    name: str
    folder: Path
    settings: dict[str, str]

    @property
    def data(self) -> Path:
        """Where the artifacts are."""
        return self.folder / "data"

    def ask(self, statement: str) -> int:
        """The one number that a query gives."""
        connection = psycopg2.connect(self.settings["DATABASE_URL"])
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return int(cursor.fetchone()[0])
        finally:
            connection.close()


class Testbed:
    """PostgreSQL and Redis for one run, on a folder that is deleted after it; what is kept goes to `results`."""

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder = folder
        self.results = results
        self._postgres = PostgresServer(folder / "postgres")
        self._redis = RedisServer(folder)

    def site(self, name: str, **settings: str) -> Site:
        """A new site, its database migrated."""
        url = create_database(self._postgres.url, f"bench_{name}")
        database = Database(url, timeout_s=60)
        migrate(database)
        database.close()
        folder = self.folder / name
        folder.mkdir()
        return Site(name, folder, {"DATABASE_URL": url, "REDIS_URL": self._redis.url} | settings)

    def remove(self, site: Site) -> None:
        """Delete what is no longer needed."""
        connection = psycopg2.connect(self._postgres.url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE "bench_{site.name}" WITH (FORCE)')
        connection.close()
        shutil.rmtree(site.folder)

    def close(self) -> None:
        """Stop both."""
        self._redis.stop()
        self._postgres.delete()


@contextmanager
def reference(kind: str) -> Iterator[str]:
    """The URL of a server that runs `benchmark.reference`."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmark.reference", kind, str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(url)
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()
