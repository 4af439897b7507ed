"""API keys: which requests are let in, by which key, in which process, from when to when."""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import httpx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api import gate
from app.api_keys import SCOPES, SeriesPatterns, parse_patterns, parse_scopes
from app.bootstrap import Services, build
from app.config import Settings
from app.errors import ConfigurationError
from app.main import create_app
from tests.keys import EVERY_SCOPE, add_key, run_keys, with_key
from tests.servers import PostgresServer, Tidemark, create_database, postgres_folder, run_tidemark, serve_tidemark

BODY = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0]}
POINT = {"timestamp": 5, "value": 13.0}
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
NDJSON = {"Content-Type": "application/x-ndjson"}


class Guarded(NamedTuple):
    """A service that asks for keys."""

    server: Tidemark
    folder: Path
    settings: dict[str, str]

    @property
    def database_url(self) -> str:
        return self.settings.get("DATABASE_URL", f"sqlite:///{self.folder / 'data/tidemark.db'}")

    def client(self, name: str, scope: str = EVERY_SCOPE, series: str = "*") -> httpx.Client:
        return with_key(self.server.url, add_key(self.database_url, name, scope, series))


@pytest.fixture(scope="module", params=["postgres", "sqlite"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """On PostgreSQL and on SQLite, with one series of each of two plants."""
    folder = tmp_path_factory.mktemp(f"guarded-{request.param}")
    settings = {"AUTH": "on"}
    if request.param == "postgres":
        settings["DATABASE_URL"] = create_database(
            request.getfixturevalue("postgres_server"), f"guarded_{request.getfixturevalue('worker_id')}"
        )
        assert run_tidemark(folder, "migrate", settings=settings).returncode == 0
    with serve_tidemark(folder, settings) as server:
        guarded = Guarded(server, folder, settings)
        with guarded.client("owner") as owner:
            for series_id in ("plant1.a", "plant2.b"):
                owner.post(f"/fit/{series_id}", json=BODY).raise_for_status()
                owner.put(f"/series/{series_id}/aliases/prod", json={"version": "1"}).raise_for_status()
        yield guarded


@pytest.fixture(scope="module")
def plant1(guarded: Guarded) -> Iterator[httpx.Client]:
    """With every scope, on the series of one plant."""
    with guarded.client("plant1", series="plant1.*") as client:
        yield client


def kind(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.json()["type"].removeprefix("/problems/")


def operations() -> list[tuple[str, str]]:
    """Every method and path that is served, the pages too."""
    with TemporaryDirectory() as folder:
        services = build(Settings(_env_file=None, data_dir=Path(folder)))
        routers = [getattr(route, "original_router", None) for route in create_app(services).routes]
        services.close()
    return sorted(
        (method, route.path) for router in routers if router for route in router.routes for method in route.methods
    )


OPERATIONS = operations()
GUARDED = [each for each in OPERATIONS if each[1].split("/")[1] not in gate.PUBLIC]


def address(path: str, series_id: str) -> str:
    filled = path.format(series_id=series_id, version="1", name="prod", fingerprint="x")
    return f"{filled}?series_id={series_id}" if path.startswith("/plot") else filled


# ---- who is let in -------------------------------------------------------------------------------------------


def test_only_these_paths_need_no_key() -> None:
    """A new route is guarded unless someone says otherwise, here."""
    assert {path for _, path in OPERATIONS if (_, path) not in GUARDED} == {
        "/livez",
        "/readyz",
        "/docs",
        "/sign-in",
        "/sign-out",
        "/static/{fingerprint}/{name}",
    }


def test_without_a_key_every_other_route_is_401_and_says_how_to_send_one(guarded: Guarded) -> None:
    for method, path in GUARDED:
        for headers in ({}, {"Authorization": "Basic dXNlcjpwYXNz"}, {"Authorization": "Bearer"}):
            answer = guarded.server.client.request(method, address(path, "plant1.a"), headers=headers, json=POINT)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == 'Bearer realm="tidemark"'
            if method != "HEAD":
                assert kind(answer) == "unauthenticated"
                assert "X-API-Key" in answer.json()["detail"]


def test_a_key_for_one_plant_reaches_no_series_of_another(plant1: httpx.Client) -> None:
    of_a_series = [each for each in GUARDED if "{series_id}" in each[1] or each[1].startswith("/plot")]
    assert len(of_a_series) > 10
    for method, path in of_a_series:
        answer = plant1.request(method, address(path, "plant2.b"), json=POINT)
        assert answer.status_code == 403, (method, path)
        if method != "HEAD":
            assert kind(answer) == "series-not-allowed"
            assert "plant2.b" in answer.json()["detail"]


@pytest.mark.parametrize("missing", SCOPES)
def test_a_key_without_a_scope_is_403_where_it_takes_that_scope_and_the_answer_names_it(
    guarded: Guarded, missing: str
) -> None:
    others = ",".join(scope for scope in SCOPES if scope != missing)
    with guarded.client(f"without-{missing}", others) as client:
        for method, path in GUARDED:
            needed = gate.wanted(method, path)[0]
            if needed == missing:
                answer = client.request(method, address(path, "plant1.a"), json=POINT)
                assert answer.status_code == 403, (method, path)
                if method != "HEAD":
                    assert kind(answer) == "scope-missing"
                    assert missing in answer.json()["detail"]


def test_reading_judging_fitting_and_changing_take_the_scope_of_that_name() -> None:
    def scopes(pattern: str) -> set[str | None]:
        return {gate.wanted(method, path)[0] for method, path in GUARDED if re.fullmatch(pattern, f"{method} {path}")}

    assert scopes(r"POST /(predict|detect).*") == {"predict"}
    assert scopes(r"POST /fit.*") == {"fit"}
    assert scopes(r"(GET|HEAD) .*") == {"read"}
    assert scopes(r"(PUT|DELETE) .*") == {"admin"}
    assert gate.wanted("POST", "/something/new")[0] is not None


def test_wrong_keys_are_401_however_they_are_wrong(guarded: Guarded) -> None:
    key = add_key(guarded.database_url, "almost", "predict")
    wrong = [
        key[:-1],
        key + "A",
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        key.swapcase(),
        key[:16],
        "tm_",
        "x" * 60,
    ]
    for text in [*wrong, f"tm_{'0' * 12}_{'A' * 43}", "\u00e9" * 20]:
        for headers in ({"Authorization": b"Bearer " + text.encode()}, {"X-API-Key": text.encode()}):
            answer = guarded.server.client.post("/predict/plant1.a", json=POINT, headers=headers)
            assert (answer.status_code, kind(answer)) == (401, "key-unknown")


def test_the_scheme_of_the_header_is_taken_in_any_case(guarded: Guarded) -> None:
    key = add_key(guarded.database_url, "any-case", "predict")
    for header, form in (("Authorization", "Bearer {}"), ("Authorization", "BEARER  {}"), ("X-API-Key", "{}")):
        headers = {header: form.format(key)}
        assert guarded.server.client.post("/predict/plant1.a", json=POINT, headers=headers).status_code == 200


def test_another_header_beside_the_key_is_never_taken_for_the_key(guarded: Guarded) -> None:
    key = add_key(guarded.database_url, "beside", "predict,read")
    other = {"Authorization": "Basic bm9ib2R5OnNlY3JldA=="}
    ask = partial(guarded.server.client.post, "/predict/plant1.a", json=POINT)
    for _ in range(2):
        assert ask(headers=other | {"X-API-Key": key}).status_code == 200
        assert ask(headers=other).status_code == 401
        assert ask().status_code == 401


def test_what_is_refused_is_refused_before_its_body_is_looked_at(guarded: Guarded) -> None:
    assert guarded.server.client.post("/fit/plant1.a", content=b"{").status_code == 401
    assert guarded.server.client.get("/nothing/here").status_code == 401


# ---- what they see -------------------------------------------------------------------------------------------


def test_lists_counts_and_pages_leave_out_what_the_key_is_not_for(guarded: Guarded, plant1: httpx.Client) -> None:
    listed = [item["series_id"] for item in plant1.get("/series").json()["series"]]
    assert listed == ["plant1.a"]
    assert plant1.get("/series?search=plant2").json()["series"] == []
    assert plant1.get("/healthcheck").json()["series_trained"] == 1
    home = plant1.get("/", headers={"Accept": "text/html"})
    assert "plant1.a" in home.text
    assert "plant2" not in home.text
    with guarded.client("all", "read") as everything:
        assert [item["series_id"] for item in everything.get("/series").json()["series"]] == ["plant1.a", "plant2.b"]
        assert everything.get("/healthcheck").json()["series_trained"] == 2


def test_a_pattern_is_no_more_than_it_says(guarded: Guarded) -> None:
    with guarded.client("writer") as writer:
        for series_id in ("plant1xa", "Plant1.a", "plant_.a", "plant-.a"):
            writer.post(f"/fit/{series_id}", json=BODY).raise_for_status()
        for n, (pattern, expected) in enumerate(
            {
                "plant1.*": ["plant1.a"],
                "plant_.?": ["plant_.a"],
                "plant?.a": ["plant-.a", "plant1.a", "plant_.a"],
                "Plant*,plant2.b": ["Plant1.a", "plant2.b"],
                "*xa": ["plant1xa"],
            }.items()
        ):
            with guarded.client(f"pattern-{n}", "read", pattern) as client:
                listed = [item["series_id"] for item in client.get("/series").json()["series"]]
                assert sorted(listed) == sorted(expected), pattern
                assert {s for s in expected if client.get(f"/series/{s}").status_code == 200} == set(expected)
        for series_id in ("plant1xa", "Plant1.a", "plant_.a", "plant-.a"):
            writer.delete(f"/series/{series_id}").raise_for_status()


def test_lines_and_rows_of_other_series_are_403_one_by_one(plant1: httpx.Client) -> None:
    names = ("plant1.a", "plant2.b", "plant1.a")
    fits = "\n".join(json.dumps({"series_id": name, **BODY}) for name in names)
    points = "\n".join(json.dumps({"series_id": name, **POINT}) for name in names)
    for path, body in (("/fit", fits), ("/predict", points), ("/detect", fits)):
        answer = plant1.post(path, content=body, headers=NDJSON)
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert [line["status"] for line in lines] == [200, 403, 200], path
        assert lines[1]["type"] == "/problems/series-not-allowed"
    table = pa.table({"series_id": names, "timestamp": [5.0, 5.0, 6.0], "value": [9.0, 9.0, 9.0]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    rows = pa.ipc.open_stream(plant1.post("/predict", content=sink.getvalue().to_pybytes(), headers=ARROW).content)
    assert rows.read_all()["status"].to_pylist() == [200, 403, 200]


def test_blanks_around_the_name_of_a_series_lead_past_no_pattern(guarded: Guarded) -> None:
    with guarded.client("starts-anyhow", "predict,read", "?plant2.b") as client:
        for path in ("/predict/%20plant2.b", "/predict/plant2.b%20"):
            assert kind(client.post(path, json=POINT)) == "series-not-allowed"
        assert kind(client.get("/plot/data?series_id=%20plant2.b")) == "series-not-allowed"


def test_a_version_remembers_the_key_that_made_it(guarded: Guarded) -> None:
    ways: dict[str, Callable[[httpx.Client], httpx.Response]] = {
        "small": lambda client: client.post("/fit/made.by", json={**BODY, "detector": "mean_std"}),
        "chosen": lambda client: client.post("/fit/made.by", json=BODY, headers={"Idempotency-Key": "made"}),
        "bulk": lambda client: client.post("/fit", content=json.dumps({"series_id": "made.by", **BODY})),
    }
    for version, (name, fit) in enumerate(ways.items(), 1):
        with guarded.client(f"maker.{name}") as client:
            fit(client).raise_for_status()
            assert client.get(f"/series/made.by/versions/{version}").json()["created_by"] == f"maker.{name}"
            page = client.get(f"/plot?series_id=made.by&version={version}", headers={"Accept": "text/html"})
            assert f"<dd>maker.{name}</dd>" in page.text
    with guarded.client("cleaner") as client:
        client.delete("/series/made.by").raise_for_status()


# ---- from when to when ---------------------------------------------------------------------------------------


def test_a_key_is_good_at_once_and_refused_within_a_second_of_its_end_in_every_process(
    guarded: Guarded, tmp_path: Path
) -> None:
    artifacts = {"DATA_DIR": str(guarded.folder / "data")}
    with serve_tidemark(tmp_path, guarded.settings | artifacts) as other:
        key = add_key(guarded.database_url, "short", "predict,read")
        urls = (guarded.server.url, other.url)
        for url in urls:
            with with_key(url, key) as client:
                assert client.post("/predict/plant1.a", json=POINT).status_code == 200
        revoked = run_keys(guarded.folder, "revoke", "short", settings=guarded.settings)
        revoked_at = time.monotonic()
        assert revoked.exit_code == 0
        time.sleep(max(0.0, revoked_at + 1 - time.monotonic()))
        for url in urls:
            with with_key(url, key) as client:
                assert kind(client.post("/predict/plant1.a", json=POINT)) == "key-unknown"


def test_an_expired_key_is_refused_without_being_revoked(guarded: Guarded) -> None:
    end = datetime.now(UTC) + timedelta(seconds=2)
    text = add_key(guarded.database_url, "expiring", "predict", expires_at=end)
    with with_key(guarded.server.url, text) as client:
        assert client.post("/predict/plant1.a", json=POINT).status_code == 200
        time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()) + 0.1)
        assert kind(client.post("/predict/plant1.a", json=POINT)) == "key-unknown"


def test_what_is_stored_of_a_key_does_not_give_it_away(
    guarded: Guarded, build_services: Callable[..., Services]
) -> None:
    key = add_key(guarded.database_url, "secret", "read")
    listed = run_keys(guarded.folder, "list", settings=guarded.settings)
    assert key[:15] in listed.stdout
    assert key[16:] not in listed.stdout + listed.stderr
    assert key[16:] not in guarded.server.log.read_text()
    with build_services(database_url=guarded.database_url).database.read() as connection:
        row = connection.exec_driver_sql("SELECT * FROM api_keys WHERE name = 'secret'").one()
    assert key[16:] not in repr(row)


def test_while_the_database_is_away_known_keys_are_good_and_unknown_ones_are_503(tmp_path: Path) -> None:
    postgres = PostgresServer(postgres_folder())
    settings = {"DATABASE_URL": create_database(postgres.url, "away"), "AUTH": "on", "DATABASE_TIMEOUT_S": "2"}
    assert run_tidemark(tmp_path, "migrate", settings=settings).returncode == 0
    with serve_tidemark(tmp_path, settings) as server:
        key = add_key(settings["DATABASE_URL"], "known", "fit,predict")
        with with_key(server.url, key) as client:
            client.post("/fit/s", json=BODY).raise_for_status()
            time.sleep(0.3)  # the feed of changes has been read to its end
            client.post("/predict/s", json=POINT).raise_for_status()
            postgres.stop()
            assert client.post("/predict/s", json=POINT).status_code == 200
            unknown = client.post("/predict/s", json=POINT, headers={"Authorization": f"Bearer {key}x"})
            assert unknown.status_code == 503
            assert client.post("/predict/s", json=POINT).status_code == 200
    with serve_tidemark(tmp_path, settings | {"HOST": "0.0.0.0"}) as started:
        port = started.url.rpartition(":")[2]
        with with_key(f"http://127.0.0.1:{port}", key) as client:
            assert client.get("/series").status_code == 503
            postgres.start()
            assert client.get("/livez").status_code == 200
            answer = client.post("/predict/s", json=POINT)
            assert answer.status_code == 200, answer.text
    postgres.delete()


# ---- whether they are asked for ------------------------------------------------------------------------------


def test_listening_elsewhere_without_a_key_refuses_to_start_and_says_how_to_go_on(tmp_path: Path) -> None:
    refused = run_tidemark(tmp_path, "serve", settings={"HOST": "0.0.0.0"})
    assert refused.returncode == 1
    for way in ("keys create", "API_KEY", "AUTH=off"):
        assert way in refused.stderr
    key = create(tmp_path, "first", "fit")
    with serve_tidemark(tmp_path, {"HOST": "0.0.0.0"}) as server:
        url = f"http://127.0.0.1:{server.url.rpartition(':')[2]}"
        assert httpx.get(f"{url}/series").status_code == 401
        with with_key(url, key) as client:
            assert client.post("/fit/s", json=BODY).status_code == 200
    assert run_keys(tmp_path, "revoke", key[3:15]).exit_code == 0
    assert run_tidemark(tmp_path, "serve", settings={"HOST": "0.0.0.0"}).returncode == 1


@pytest.mark.parametrize(
    ("settings", "keys", "status"),
    [
        ({}, 0, 200),
        ({}, 1, 401),
        ({"AUTH": "off"}, 1, 200),
        ({"AUTH": "on"}, 0, 401),
        ({"API_KEY": "one-key-for-everything"}, 0, 401),
        ({"AUTH": "off", "HOST": "0.0.0.0"}, 0, 200),
    ],
    ids=str,
)
def test_keys_are_asked_for_as_the_settings_and_the_keys_have_it(
    tmp_path: Path, settings: dict[str, str], keys: int, status: int
) -> None:
    for n in range(keys):
        create(tmp_path, f"key-{n}", "read")
    with serve_tidemark(tmp_path, settings) as server:
        url = f"http://127.0.0.1:{server.url.rpartition(':')[2]}"
        assert httpx.get(f"{url}/series").status_code == status
        document = httpx.get(f"{url}/openapi.json").json()
        assert ("securitySchemes" in document["components"]) == (status == 401)
        assert ("401" in document["paths"]["/series"]["get"]["responses"]) == (status == 401)
        assert "security" not in document["paths"]["/livez"]["get"]


def test_the_key_of_the_environment_may_do_everything_and_leaves_its_name(tmp_path: Path) -> None:
    with serve_tidemark(tmp_path, {"API_KEY": "short", "HOST": "0.0.0.0"}) as server:
        with with_key(f"http://127.0.0.1:{server.url.rpartition(':')[2]}", "short") as client:
            client.post("/fit/s", json=BODY).raise_for_status()
            assert client.get("/series/s/versions/1").json()["created_by"] == "API_KEY"
            assert client.delete("/series/s").status_code == 204
        log = server.log.read_text()
        assert "short enough to be guessed" in log
    conflict = run_tidemark(tmp_path, "serve", settings={"API_KEY": "any-key-at-all", "AUTH": "off"})
    assert conflict.returncode == 1
    assert "AUTH=off" in conflict.stderr


def create(folder: Path, name: str, scope: str) -> str:
    created = run_keys(folder, "create", "--name", name, "--scope", scope)
    assert created.exit_code == 0, created.output
    return created.stdout.strip()


# ---- the command ---------------------------------------------------------------------------------------------


def test_mistakes_in_a_command_are_said_and_make_no_key(tmp_path: Path) -> None:
    create(tmp_path, "taken", "fit")
    mistakes = {
        "create --name k --scope fit,wriet": "wriet is no scope",
        "create --name k --scope ,": "no scope",
        "create --name k --scope fit --series a/b": "no pattern of series",
        "create --name k --scope fit --series a,,b": "no pattern of series",
        "create --name two/words --scope fit": "no name for a key",
        "create --name k --scope fit --expires soon": "90d",
        "create --name k --scope fit --expires 2020-01-01": "in the past",
        "create --name k --scope fit --expires 900y": "100 years",
        "create --name taken --scope fit": "take another",
        "revoke nobody": "keys list",
    }
    for command, advice in mistakes.items():
        result = run_keys(tmp_path, *command.split())
        assert isinstance(result.exception, ConfigurationError), command
        assert advice in result.exception.detail
    assert run_keys(tmp_path, "list").stdout.count("tm_") == 1


def test_a_key_is_shown_once_listed_without_its_text_and_revoked_by_name_or_by_its_beginning(tmp_path: Path) -> None:
    arguments = ("--name", "plant1", "--scope", "fit,read", "--series", "plant1.*", "--expires", "90d")
    limits = ("--requests-per-minute", "600", "--points-per-minute", "100000")
    created = run_tidemark(tmp_path, "keys", "create", *arguments, *limits, settings={})
    text = created.stdout.strip()
    assert re.fullmatch(r"tm_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", text)
    assert "plant1.* until" in created.stderr
    assert "keep it now" in created.stderr
    listed = run_keys(tmp_path, "list").stdout
    for shown in ("plant1", text[:15], "fit,read", "plant1.*", "600 requests, 100,000 points", "valid until"):
        assert shown in listed
    assert text[16:] not in listed
    assert run_keys(tmp_path, "revoke", text[3:15]).exit_code == 0
    assert run_keys(tmp_path, "revoke", "plant1").exit_code == 0
    assert "revoked" in run_keys(tmp_path, "list").stdout


@given(st.text("ab*?", min_size=1, max_size=8), st.text("ab", max_size=8))
def test_a_glob_matches_what_the_standard_library_says(glob: str, name: str) -> None:
    assert SeriesPatterns(glob).match(name) == fnmatchcase(name, glob)


def test_no_glob_takes_long() -> None:
    started = time.process_time()
    assert not SeriesPatterns("*a" * 30 + "*b").match("a" * 200)
    assert time.process_time() - started < 0.1


def test_globs_mean_what_they_say() -> None:
    assert parse_patterns("a.*, b?").match("a.x")
    assert parse_patterns("a.*, b?").match("b1")
    assert not SeriesPatterns("a.*").match("axx")
    assert not SeriesPatterns("a").match("ab")
    assert SeriesPatterns("x,*").are_all
    assert SeriesPatterns("a*b*c").match("a.b.b.c")
    assert not SeriesPatterns("a*b*c").match("a.c.b")
    assert not SeriesPatterns("a*a").match("a")
    assert parse_scopes("read, fit") == {"fit", "read"}
    with pytest.raises(ConfigurationError):
        parse_patterns("[ab]")
