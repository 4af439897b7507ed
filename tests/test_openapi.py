"""The OpenAPI document against the really running service, and what the document holds."""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.case import Case
from schemathesis.openapi.loaders import from_dict
from schemathesis.transport.serialization import Binary

from app.api.gate import wanted
from app.api_keys import SCOPES, Scope
from app.bootstrap import build
from app.config import Settings
from app.main import create_app
from tests.keys import add_key, with_key
from tests.servers import RedisServer, Tidemark, create_database, run_tidemark, serve_tidemark

MAX_EXAMPLES = 8
FITTED = {"timestamps": [1705000000, 1705000001, 1705000002, 1705000003], "values": [10.0, 10.5, 9.5, 10.0]}
ANSWERS_OF_VALID_REQUESTS = ["2xx", "3xx", "404", "409", "410", "412"]
REFUSALS = ["404", "405", "410", "412", "422"]
# JSON Schema cannot say: lists of equal length that increase strictly, values that are not all equal, a key that is
# used once, a moment not before 1970.
BEYOND_A_SCHEMA = ("/fit/{series_id}", "/predict/{series_id}", "/plot/data", "/fit", "/predict", "/detect")
CONFIG: dict[str, Any] = {
    "checks": {
        # What exists, what was deleted and which tag is current are no matter of a schema either.
        "positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", "404", "409", "410", "412"]},
        "negative_data_rejection": {"expected-statuses": ["404", "405", "409", "410", "412", "422"]},
    },
    "operations": [
        {"include-path": path, "checks": {"positive_data_acceptance": {"enabled": False}}} for path in BEYOND_A_SCHEMA
    ],
}
OF_A_TRAINED_SERIES = CONFIG | {
    "parameters": {"path.series_id": "sensor_01"},
    "generation": {"with-security-parameters": False},  # the key is ours
}
fuzz = settings(max_examples=MAX_EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


BINARY = ("application/x-ndjson", "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet")


@schemathesis.serializer(*BINARY)
def as_it_is(_: Any, value: Any) -> bytes:
    return value.data if isinstance(value, Binary) else str(value).encode()


def document_of_the_code(**settings: object) -> dict[str, Any]:
    """Built at collection, so that each operation is a test of its own; no service is started for it."""
    with TemporaryDirectory() as folder:
        services = build(Settings(_env_file=None, data_dir=Path(folder), **settings))
        document = create_app(services).openapi()
        services.close()
    return document


DOCUMENT = document_of_the_code()
WITH_KEYS = document_of_the_code(auth="on")


def operations_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


OPERATIONS = operations_of(DOCUMENT)
OPERATIONS_WITH_KEYS = operations_of(WITH_KEYS)
PROTECTED = [name for name, operation in OPERATIONS_WITH_KEYS.items() if "security" in operation]
anything = from_dict(DOCUMENT, config=SchemathesisConfig.from_dict(CONFIG))
trained_series = from_dict(WITH_KEYS, config=SchemathesisConfig.from_dict(OF_A_TRAINED_SERIES))


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, redis_server: RedisServer
) -> Iterator[Tidemark]:
    """A running service with something in it, under the names of the document's examples."""
    stores = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_server.url}
    with serve_tidemark(tmp_path_factory.mktemp("openapi"), stores) as running:
        yield running


class Guarded(NamedTuple):
    """A service that asks for keys, a client with a key for everything, and one for each scope with all the others."""

    url: str
    client: httpx.Client
    without: dict[Scope, httpx.Client]


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: str, worker_id: str, redis_server: RedisServer
) -> Iterator[Guarded]:
    folder, url = tmp_path_factory.mktemp("openapi-keys"), create_database(postgres_server, f"keys_{worker_id}")
    settings = {"DATABASE_URL": url, "REDIS_URL": redis_server.url, "AUTH": "on"}
    run_tidemark(folder, "migrate", settings=settings).check_returncode()
    with serve_tidemark(folder, settings) as running, ExitStack() as clients:

        def client(name: str, scopes: Iterable[Scope]) -> httpx.Client:
            return clients.enter_context(with_key(running.url, add_key(url, name, ",".join(scopes))))

        lesser = {scope: client(f"no-{scope}", {*SCOPES} - {scope}) for scope in SCOPES}
        yield Guarded(running.url, client("full", SCOPES), lesser)


def train(client: httpx.Client) -> None:
    """Versions and an alias under the names of the document's examples."""
    for _ in range(3):
        client.post("/fit/sensor_01", json=FITTED).raise_for_status()
    client.put("/series/sensor_01/aliases/prod", json={"version": "latest"}).raise_for_status()


@pytest.fixture
def trained(service: Tidemark) -> Tidemark:
    train(service.client)
    return service


@pytest.fixture
def trained_and_guarded(guarded: Guarded) -> Guarded:
    train(guarded.client)
    return guarded


@anything.parametrize()
@fuzz
def test_the_service_answers_as_documented(case: Case, trained: Tidemark) -> None:
    case.call_and_validate(base_url=trained.url)


@trained_series.include(path_regex="series_id").parametrize()
@fuzz
def test_with_a_key_the_service_answers_about_a_trained_series_as_documented(
    case: Case, trained_and_guarded: Guarded
) -> None:
    key = {"Authorization": trained_and_guarded.client.headers["Authorization"]}
    case.call_and_validate(base_url=trained_and_guarded.url, headers=key)


@pytest.mark.parametrize("name", PROTECTED)
def test_without_a_key_nothing_is_done_and_nothing_told(name: str, guarded: Guarded) -> None:
    train(guarded.client)
    method, path = name.split()
    before = guarded.client.get("/series/sensor_01").text
    for headers in ({}, {"Authorization": "Bearer tm_nobody"}, {"X-API-Key": "tm_nobody"}):
        answers = {}
        for series_id, body in (("sensor_01", b"{}"), ("sensor_99", b"no JSON"), ("a..b", b"")):
            target = path.format(series_id=series_id, version="1", name="prod")
            answer = httpx.request(method, f"{guarded.url}{target}?unknown=1", content=body, headers=headers)
            assert answer.status_code == 401, answer.text
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["content-type"] == "application/problem+json"
            answers[series_id] = {**answer.json(), "instance": "", "request_id": ""}
        assert answers["sensor_01"] == answers["sensor_99"] == answers["a..b"]
        assert answers["a..b"]["errors"] == []
    assert guarded.client.get("/series/sensor_01").text == before


@pytest.mark.parametrize("name", PROTECTED)
def test_a_key_without_the_scope_of_an_operation_is_refused(name: str, guarded: Guarded) -> None:
    method, path = name.split()
    target = path.format(series_id="sensor_01", version="1", name="prod")
    scope, _ = wanted(method, target)
    assert scope is not None
    assert f"`{scope}`" in OPERATIONS_WITH_KEYS[name]["description"]
    answer = guarded.without[scope].request(method, target)
    assert answer.status_code == 403, answer.text
    assert answer.json()["type"] == "/problems/scope-missing"
    others = [client.request(method, target).status_code for other, client in guarded.without.items() if other != scope]
    assert not {401, 403} & set(others)


def test_only_what_tells_nothing_of_what_is_stored_needs_no_key() -> None:
    assert OPERATIONS_WITH_KEYS.keys() - set(PROTECTED) == {"GET /livez", "GET /readyz"}
    assert all({"401", "403", "429"} <= OPERATIONS_WITH_KEYS[name]["responses"].keys() for name in PROTECTED)


def test_the_service_serves_this_document_and_pages_that_show_it(service: Tidemark) -> None:
    assert service.client.get("/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
    assert service.client.get("/docs").status_code == 200


def test_the_document_is_valid_and_all_its_references_resolve() -> None:
    anything.validate()

    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            part = list(part.values())
        if isinstance(part, list):
            for item in part:
                yield from references(item)

    for reference in set(references(DOCUMENT)):
        part: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            part = part.get(name, {})
        assert part, f"{reference} does not resolve"


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_summarized_and_tagged(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["tags"]
    assert [other for other in OPERATIONS.values() if other["operationId"] == operation["operationId"]] == [operation]
    assert all(
        parameter.get("description") or parameter["in"] == "path" for parameter in operation.get("parameters", [])
    )
    assert all(answer["description"] for answer in operation["responses"].values())


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_documents_its_problems(name: str) -> None:
    operation = OPERATIONS[name]
    answers = operation["responses"]
    if operation.get("parameters") or "requestBody" in operation:
        assert "422" in answers
    if "series_id" in name and not name.startswith("POST /fit"):
        assert "404" in answers
    if "requestBody" in operation:
        assert "413" in answers
    for status, answer in answers.items():
        if int(status) >= 400 and name != "GET /readyz":  # which says the same things whether ready or not
            assert list(answer["content"]) == ["application/problem+json"], status
            schema = answer["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}
    if "503" in answers and name != "GET /readyz":
        assert "Retry-After" in answers["503"]["headers"]


def bodies() -> Iterator[tuple[str, Any]]:
    for name, operation in OPERATIONS.items():
        if content := operation.get("requestBody", {}).get("content", {}).get("application/json"):
            schema = content["schema"]
            for one in schema.get("anyOf", [schema]):
                if "$ref" in one:
                    one = DOCUMENT["components"]["schemas"][one["$ref"].rpartition("/")[2]]  # noqa: PLW2901
                yield name, one


def test_every_body_has_an_example_that_works(service: Tidemark, series_id: str) -> None:
    for _ in range(3):
        service.client.post(f"/fit/{series_id}", json=FITTED).raise_for_status()
    shown = list(bodies())
    assert {name.split()[1] for name, _ in shown} >= {"/fit/{series_id}", "/predict/{series_id}"}
    for name, schema in shown:
        assert schema["examples"], name
        method, path = name.split()
        for example in schema["examples"]:
            answer = service.client.request(method, path.format(series_id=series_id, name="prod"), json=example)
            assert answer.status_code == 200, f"{name} {example}: {answer.text}"


def test_every_example_of_a_line_works(service: Tidemark) -> None:
    service.client.post("/fit/sensor_01", json=FITTED).raise_for_status()
    shown = {
        name: content["application/x-ndjson"]["example"]
        for name, operation in OPERATIONS.items()
        if "application/x-ndjson" in (content := operation.get("requestBody", {}).get("content", {}))
    }
    assert shown.keys() == {"POST /fit", "POST /predict", "POST /detect"}
    for name, example in shown.items():
        answer = service.client.post(name.split()[1], content=example, headers={"Content-Type": BINARY[0]})
        assert json.loads(answer.text)["status"] == 200, answer.text
