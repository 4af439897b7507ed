"""A later release's migration while this release serves: nothing fails, before, during and after it."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import inspect, text

from app.db import Database
from app.errors import DatabaseUnavailable, SchemaOutdated
from app.migrations import check_schema, migrate
from tests.servers import REPOSITORY, Tidemark, run_tidemark

BODY = {"timestamps": [1, 2, 3], "values": [1.0, 2.0, 1.0], "detector": "mean_std"}
POINT = {"timestamp": 4, "value": 1.0}
LATER = '''"""What a later release adds."""

import sqlalchemy as sa

from alembic import op

revision = "0900"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("added", sa.String(100)))
    op.add_column("series", sa.Column("added", sa.Integer, server_default="1", nullable=False))
    op.create_table("added", sa.Column("id", sa.Integer, primary_key=True))
'''


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The migrations of a later release."""
    folder = tmp_path / "later"
    shutil.copytree(REPOSITORY / "alembic", folder / "alembic")
    newest = max(path.stem for path in (folder / "alembic/versions").glob("0*.py"))[:4]
    (folder / "alembic/versions/0900_added.py").write_text(LATER.format(before=newest))
    shutil.copy(REPOSITORY / "alembic.ini", folder / "alembic.ini")
    return folder / "alembic.ini"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url, timeout_s=30)
    yield opened
    opened.close()


class Load:
    """Clients that do all that writes and reads rows; what was not answered as it should be."""

    def __init__(self, server: Tidemark) -> None:
        self.faults: list[str] = []
        self.fits = 0
        self._server = server
        self._ending = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, args=(f"s{n}",)) for n in range(3)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()

    def await_more(self) -> None:
        until, deadline = self.fits + 6, time.monotonic() + 30
        while self.fits < until and not self.faults:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _run(self, series_id: str) -> None:
        with httpx.Client(base_url=self._server.url, timeout=30) as client:
            n = 0
            while not self._ending.is_set():
                n += 1
                series = f"/series/{series_id}"
                line = {"series_id": f"{series_id}.bulk"} | BODY
                self._ask(client, "POST", f"/fit/{series_id}", json=BODY)
                self._ask(client, "POST", f"/fit/{series_id}", json=BODY, headers={"Idempotency-Key": str(n)})
                self._ask(client, "POST", "/fit", json=line, headers={"Content-Type": "application/x-ndjson"})
                self._ask(client, "POST", f"/predict/{series_id}?version={2 * n}", json=POINT)
                self._ask(client, "PUT", f"{series}/aliases/prod", json={"version": str(2 * n)})
                self._ask(client, "DELETE", f"{series}/versions/{2 * n - 1}")
                self._ask(client, "GET", f"{series}/versions")
                self._ask(client, "GET", "/healthcheck")
                self.fits += 2

    def _ask(self, client: httpx.Client, method: str, path: str, **more: object) -> None:
        answer = client.request(method, path, **more)
        if not answer.is_success or '"status":5' in answer.text:
            self.faults.append(f"{method} {path}: {answer.status_code} {answer.text}")


def test_a_later_schema_is_made_and_used_while_this_release_serves(
    serve: Callable[..., Tidemark], database_url: str, database: Database, later: Path, tmp_path: Path
) -> None:
    server = serve(DATABASE_URL=database_url)
    load = Load(server)
    with load.running():
        load.await_more()
        migrate(database, ini=later)
        load.await_more()
        assert server.client.get("/readyz").status_code == 200
    assert load.faults == []
    with database.read() as connection:
        assert "added" in inspect(connection).get_table_names()
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0900"
    # one of this release that is started now, and its commands, take it as it is
    assert run_tidemark(tmp_path, "migrate", settings={"DATABASE_URL": database_url}).returncode == 0
    assert serve(DATABASE_URL=database_url).client.get("/readyz").status_code == 200


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_migration_that_would_make_everyone_wait_gives_up_instead(
    serve: Callable[..., Tidemark], database_url: str, database: Database, later: Path
) -> None:
    """Someone reads a table for long, as a dump does; whoever comes after the migration would wait behind it."""
    load = Load(serve(DATABASE_URL=database_url))
    with load.running(), database.snapshot() as reading:
        reading.execute(text("SELECT count(*) FROM versions"))
        load.await_more()
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            migrate(database, ini=later)
        assert time.monotonic() - started < 8
        load.await_more()
    assert load.faults == []
    migrate(database, ini=later)


def test_a_schema_that_breaks_older_releases_says_so_by_its_number(database: Database) -> None:
    for number, is_taken in (("0999", True), ("1000", False), ("9999", False), ("09990", False), ("0001", False)):
        with database.write() as connection:
            connection.execute(text(f"UPDATE alembic_version SET version_num = '{number}'"))
        if is_taken:
            check_schema(database)
        else:
            with pytest.raises(SchemaOutdated):
                check_schema(database)


def test_the_numbers_of_migrations_keep_to_that() -> None:
    for path in (REPOSITORY / "alembic/versions").glob("*.py"):
        number = path.name[:4]
        assert number.isdigit()
        assert f'revision = "{number}"' in path.read_text()


def test_migrations_only_add_what_older_releases_need_not_know() -> None:
    """New columns have a default or may be NULL; nothing is removed, renamed or narrowed."""
    for path in (REPOSITORY / "alembic/versions").glob("0*.py"):
        upgrade = path.read_text().partition("def upgrade()")[2].partition("def downgrade()")[0]
        for call in ("drop_", "rename", "alter_column", "execute("):
            lines = [line for line in upgrade.splitlines() if call in line]
            assert all("comment=" in line for line in lines), f"{path.name}: begin the next thousand with {call}"
