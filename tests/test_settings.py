"""Settings: what the code takes is what the documents say, under the names that users know."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from app.bootstrap import Services
from app.config import Settings, read_settings
from app.errors import ConfigurationError
from tests.servers import REPOSITORY, Tidemark

NAMES = [name.upper() for name in Settings.model_fields]
OLD_NAMES = {"MODEL_FOLDER": "model_state_folder", "DATA_FOLDER": "training_data_folder"}
FOUR_POINTS = {"timestamps": [0, 1, 2, 3], "values": [10.0, 10.5, 9.5, 10.0]}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but the test's own, and no .env."""
    for name in (*NAMES, *OLD_NAMES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def default(name: str) -> str | None:
    """As it would be written into the environment; None when there is none."""
    value = Settings.model_fields[name.lower()].default
    if value is None:
        return None
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"./{value}" if isinstance(value, Path) else str(value)


# ---- documents -------------------------------------------------------------------------------------------


def test_env_example_holds_every_setting_with_its_default_and_description_and_no_other() -> None:
    text = (REPOSITORY / ".env.example").read_text()
    entries = re.findall(r"^# (\S.*)\n(?:(# )?([A-Z_]+)=(.*))$", text, re.MULTILINE)
    assert [name for _, _, name, _ in entries] == NAMES, "in the order of the code"
    for description, commented, name, value in entries:
        assert description == Settings.model_fields[name.lower()].description
        assert (None if commented else value) == default(name), name
        assert not commented or not value
    mentioned = set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", text, re.MULTILINE))
    assert mentioned == set(NAMES)


def test_env_example_as_it_stands_is_the_defaults(tmp_path: Path) -> None:
    copy = tmp_path / ".env"
    copy.write_text((REPOSITORY / ".env.example").read_text())
    assert Settings(_env_file=copy) == Settings(_env_file=None)


def test_the_readme_lists_every_setting_with_its_default_and_no_other() -> None:
    text = (REPOSITORY / "README.md").read_text()
    table = text.partition("## Configuration")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", table, re.MULTILINE))
    assert sorted(rows) == sorted(NAMES)
    for name, written in rows.items():
        expected = {None: "none", "": "empty"}.get(default(name), f"`{default(name)}`")
        assert written == expected, name


def test_the_old_names_stand_in_the_readme() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert all(f"`{name}`" in text for name in OLD_NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_described_in_one_line(name: str) -> None:
    description = Settings.model_fields[name.lower()].description or ""
    assert re.fullmatch(r"\S.*\.", description), "a sentence on one line"


# ---- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("HOST", "0.0.0.0", "0.0.0.0"),
        ("PORT", "9000", 9000),
        ("DATA_DIR", "/srv/tidemark", Path("/srv/tidemark")),
        ("DATABASE_URL", "postgresql://h/d", "postgresql://h/d"),
        ("REDIS_URL", "redis://r:6379/1", "redis://r:6379/1"),
        ("LATENCY_HISTORY_LIMIT", "7", 7),
        ("MIN_TRAINING_DATA_POINTS", "10", 10),
        ("FIT_BUDGET_S", "0.5", 0.5),
        ("MODEL_STATE_FOLDER", "s3://bucket/models", "s3://bucket/models"),
        ("TRAINING_DATA_FOLDER", "/srv/data", "/srv/data"),
        ("MAX_BODY_MB", "5", 5),
        ("MAX_POINTS", "5", 5),
    ],
)
def test_settings_come_from_the_environment_under_the_names_that_users_know(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(read_settings(), name.lower()) == value


@pytest.mark.parametrize(("old", "field"), OLD_NAMES.items())
def test_the_old_names_work_and_the_new_ones_go_before_them(
    monkeypatch: pytest.MonkeyPatch, old: str, field: str
) -> None:
    monkeypatch.setenv(old, "/old")
    assert getattr(read_settings(), field) == "/old"
    monkeypatch.setenv(field.upper(), "/new")
    assert getattr(read_settings(), field) == "/new"


def test_a_service_stores_where_the_old_names_point(
    serve: Callable[..., Tidemark], tmp_path: Path, series_id: str
) -> None:
    client: httpx.Client = serve(MODEL_FOLDER=str(tmp_path / "m"), DATA_FOLDER=(tmp_path / "t").as_uri()).client
    fitted = client.post(f"/fit/{series_id}", json=FOUR_POINTS).json()
    assert [path.stem for path in (tmp_path / "m").rglob("*.safetensors")] == [fitted["model_digest"]]
    assert [path.stem for path in (tmp_path / "t").rglob("*.parquet")] == [fitted["data_digest"]]


def test_the_environment_goes_before_the_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1111\nHOST=::1\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("PORT", "2222")
    assert (read_settings().port, read_settings().host) == (2222, "::1")


def test_an_empty_value_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")
    assert read_settings() == Settings(_env_file=None)


def test_settings_do_not_change_once_they_are_read() -> None:
    settings = read_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


# ---- the database ----------------------------------------------------------------------------------------


def test_without_a_database_it_is_sqlite_in_data_dir(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path / "here")
    assert settings.is_embedded
    assert make_url(settings.sqlalchemy_url).database == str(tmp_path / "here" / "tidemark.db")


@pytest.mark.parametrize(
    "text", ["plain", "p@ss", "a:b", "a/b", "a?b#c", "100%", "%41", "a b", "é", "[x]", "a&b=c", "+"]
)
def test_the_parts_of_a_database_become_its_url(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    parts = {"HOST": "db.local", "PORT": "6543", "NAME": "prices", "USER": text, "PASSWORD": text}
    for name, value in parts.items():
        monkeypatch.setenv(f"DATABASE_{name}", value)
    settings = read_settings()
    url = make_url(settings.sqlalchemy_url)
    assert not settings.is_embedded
    assert (url.drivername, url.host, url.port, url.database) == ("postgresql", "db.local", 6543, "prices")
    assert (url.username, url.password) == (text, text)


@pytest.mark.parametrize("host", ["::1", "fe80::1"])
def test_a_database_host_may_be_an_ipv6_address(host: str) -> None:
    url = make_url(Settings(_env_file=None, database_host=host).sqlalchemy_url)
    assert (url.host, url.port, url.password) == (host, 5432, None)


def test_a_database_url_goes_before_its_parts() -> None:
    settings = Settings(_env_file=None, database_url="sqlite:///x.db", database_host="db")
    assert settings.sqlalchemy_url == "sqlite:///x.db"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_postgresql_is_reached_under_each_of_its_names(build_services: Callable[..., Services], scheme: str) -> None:
    assert build_services(database_url=f"{scheme}://u:p@db/x").database.is_postgres


@pytest.mark.parametrize(
    "url",
    ["mysql://u:hunter2@db/x", "postgresql+asyncpg://u:hunter2@db/x", "oracle://h", "db.local:hunter2", "http://x"],
)
def test_another_database_is_refused_without_telling_its_password(
    build_services: Callable[..., Services], url: str
) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as refusal:
        build_services(database_url=url)
    assert "postgresql://" in refusal.value.detail, "it says what would be right"
    assert "hunter2" not in refusal.value.detail


# ---- bad settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "abc"),
        ("PORT", "70000"),
        ("DATABASE_PORT", "0"),
        ("DATABASE_TIMEOUT_S", "0"),
        ("LATENCY_HISTORY_LIMIT", "0"),
        ("LATENCY_HISTORY_LIMIT", "1.5"),
        ("MODEL_CACHE_MB", "-1"),
        ("MIN_TRAINING_DATA_POINTS", "1"),
        ("FIT_BUDGET_S", "0"),
        ("FIT_BUDGET_S", "-1"),
        ("FIT_BUDGET_S", "inf"),
        ("FIT_BUDGET_S", "nan"),
        ("MAX_POINTS", "0"),
        ("MAX_BODY_MB", "many"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigurationError) as refusal:
        read_settings()
    assert f"{name}: " in refusal.value.detail
    assert text in refusal.value.detail


def test_all_bad_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "abc")
    monkeypatch.setenv("MAX_POINTS", "0")
    with pytest.raises(ConfigurationError, match=r"PORT: .*MAX_POINTS: "):
        read_settings()


@pytest.mark.parametrize(("name", "text"), [("REDIS_URL", "http://redis"), ("DATABASE_URL", "mysql://db/x")])
def test_a_url_of_another_kind_is_named_at_start(build_services: Callable[..., Services], name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        build_services(**{name.lower(): text})


@pytest.mark.parametrize("name", ["PORT", "REDIS_URL", "DATABASE_URL"])
def test_a_service_with_a_bad_setting_says_so_and_does_not_start(tmp_path: Path, name: str) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "DATA_DIR": str(tmp_path), name: "x://y"}
    command = [sys.executable, "-m", "app", "serve"]
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == 1
    assert name in run.stderr
    assert "Traceback" not in run.stderr
    assert "is ready" not in run.stdout
