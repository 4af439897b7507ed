"""Versions never change, aliases move; both over HTTP, with their entity tags."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.servers import Tidemark
from tests.streaming import PARAMS

A_POINT = {"timestamp": "1705000010", "value": 13.0}


def fit(client: httpx.Client, series_id: str, level: float = 10.0) -> str:
    body = {"timestamps": [0, 1, 2, 3], "values": [level, level + 1, level - 1, level]}
    answer = client.post(f"/fit/{series_id}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["version"]


def judged_by(client: httpx.Client, series_id: str, version: str | None = None) -> int | str:
    """The version that answers a prediction, or the status of its refusal."""
    params = {} if version is None else {"version": version}
    answer = client.post(f"/predict/{series_id}", params=params, json=A_POINT)
    return answer.json()["model_version"] if answer.status_code == 200 else answer.status_code


def move(client: httpx.Client, series_id: str, name: str, version: str, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.put(f"/series/{series_id}/aliases/{name}", json={"version": version}, headers=names)


@pytest.fixture
def trained(client: httpx.Client, series_id: str) -> str:
    """A series with versions 1 to 3, of which `prod` is 2."""
    for level in (10, 20, 30):
        fit(client, series_id, level)
    assert move(client, series_id, "prod", "2").status_code == 200
    return series_id


# ---- which version is meant ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "version"),
    [
        (None, "3"),
        ("0", "3"),
        ("latest", "3"),
        ("v0", "3"),
        ("1", "1"),
        ("v1", "1"),
        ("V2", "2"),
        ("003", "3"),
        (" 2 ", "2"),
        ("@prod", "2"),
    ],
)
def test_a_version_is_selected_in_every_form_of_the_contract(
    client: httpx.Client, trained: str, selector: str | None, version: str
) -> None:
    assert judged_by(client, trained, selector) == version
    many = client.post(
        f"/predict/{trained}",
        params={} if selector is None else {"version": selector},
        json={"timestamps": [1], "values": [1.0]},
    )
    assert many.json()["model_version"] == version
    if selector is not None:
        assert client.get(f"/series/{trained}/versions/{selector}").json()["version"] == version


@pytest.mark.parametrize(
    "selector",
    ["", "x", "-1", "1.0", "1e3", "vv1", "v", "Latest", "prod", "@", "@a b", "@-x", "1,2", "٣", "0x1", "1234567890"],
)
def test_any_other_selector_is_refused(client: httpx.Client, trained: str, selector: str) -> None:
    answer = client.post(f"/predict/{trained}", params={"version": selector}, json=A_POINT)
    assert answer.status_code == 422
    assert [(fault["in"], fault["pointer"]) for fault in answer.json()["errors"]] == [("query", "/version")]
    if selector:
        assert client.get(f"/series/{trained}/versions/{selector}").status_code == 422


def test_what_does_not_exist_is_not_found(client: httpx.Client, trained: str) -> None:
    for selector in ("4", "v99", "999999999", "@no_such"):
        assert judged_by(client, trained, selector) == 404
        assert client.get(f"/series/{trained}/versions/{selector}").status_code == 404
    assert "3" in client.get(f"/series/{trained}/versions/99").json()["detail"], "the advice names the latest"
    for path in ("", "/versions", "/versions/1", "/aliases", "/aliases/prod"):
        assert client.get(f"/series/{trained}.no{path}").status_code == 404


# ---- what is known of a version --------------------------------------------------------------------------


def test_a_version_tells_all_its_provenance(client: httpx.Client, series_id: str) -> None:
    body = {"timestamps": ["2024-01-11T19:06:40Z", 1705000001.5, 1705000003], "values": [1, 2, 4], "params": {"k": 2}}
    client.post(f"/fit/{series_id}", json=body)
    answer = client.get(f"/series/{series_id}/versions/1")
    version = answer.json()
    assert {
        "series_id": series_id,
        "version": "1",
        "detector": "mean_std",
        "params": {**PARAMS, "k": 2.0},
        "points": 3,
        "first_timestamp": "2024-01-11T19:06:40Z",
        "last_timestamp": "2024-01-11T19:06:43Z",
    }.items() <= version.items()
    assert {"tidemark", "python", "numpy"} <= version["libraries"].keys()
    assert abs(datetime.now(UTC) - datetime.fromisoformat(version["created_at"])) < timedelta(minutes=1)


def test_versions_are_listed_newest_first_page_by_page(client: httpx.Client, series_id: str) -> None:
    for _ in range(7):
        fit(client, series_id)
    client.delete(f"/series/{series_id}/versions/4")
    pages = list(pages_of(client, f"/series/{series_id}/versions", limit=2))
    numbers = [[v["version"] for v in page["versions"]] for page in pages]
    assert numbers == [["7", "6"], ["5", "3"], ["2", "1"]]
    assert client.get(f"/series/{series_id}/versions").json()["next_cursor"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=-1", "limit=x", "cursor=x", "cursor=-1", "cursor=%00"]
)
def test_a_page_that_cannot_be_is_refused(client: httpx.Client, trained: str, query: str) -> None:
    answer = client.get(f"/series/{trained}/versions?{query}")
    assert answer.status_code == 422
    assert [(f["in"], f["pointer"]) for f in answer.json()["errors"]] == [("query", f"/{query.partition('=')[0]}")]


def pages_of(client: httpx.Client, path: str, **params: Any) -> Iterator[dict[str, Any]]:
    cursor: dict[str, str] = {}
    while True:
        answer = client.get(path, params=params | cursor)
        assert answer.status_code == 200, answer.text
        yield answer.json()
        if answer.json()["next_cursor"] is None:
            return
        cursor = {"cursor": answer.json()["next_cursor"]}


# ---- the list of series ----------------------------------------------------------------------------------


def test_more_than_a_hundred_series_are_listed_page_by_page_and_searched(client: httpx.Client, series_id: str) -> None:
    names = [f"{series_id}.{kind}{i:03}" for kind in ("a_", "A-") for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: fit(client, name), names))
    pages = list(pages_of(client, "/series", limit=50, search=series_id))
    assert [len(page["series"]) for page in pages] == [50, 50, 20]
    assert [item["series_id"] for page in pages for item in page["series"]] == sorted(names)

    everything = [item["series_id"] for page in pages_of(client, "/series", limit=90) for item in page["series"]]
    assert everything == sorted(set(everything)), "by name, none twice"
    assert set(names) <= set(everything)

    def found(search: str) -> list[str]:
        return [item["series_id"] for item in client.get("/series", params={"search": search}).json()["series"]]

    assert found(f"{series_id}.A-05") == [n for n in sorted(names) if "A-05" in n]
    assert found(f"{series_id}.a_01") == [n for n in names if ".a_01" in n], "_ stands for itself"
    assert found(f"{series_id}.%") == [], "% stands for itself"
    assert found(series_id.upper())[:3] == sorted(names)[:3], "whatever the case"
    assert found("no such series") == []


def test_a_listed_series_tells_its_latest_version(client: httpx.Client, trained: str) -> None:
    (item,) = client.get("/series", params={"search": trained}).json()["series"]
    assert {"series_id": trained, "latest_version": "3", "detector": "mean_std", "points": 4}.items() <= item.items()
    assert item["created_at"] <= item["updated_at"]
    detail = client.get(f"/series/{trained}").json()
    assert item.items() <= detail.items()
    assert (detail["versions"], detail["aliases"]) == (3, {"prod": "2"})


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=", "search=%00", "cursor=%00", f"search={'x' * 201}"]
)
def test_a_list_that_cannot_be_is_refused(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/series?{query}")
    assert answer.status_code == 422
    assert [(f["in"], f["pointer"]) for f in answer.json()["errors"]] == [("query", f"/{query.partition('=')[0]}")]


# ---- deleting --------------------------------------------------------------------------------------------


def test_a_deleted_version_is_gone_and_the_others_stay(client: httpx.Client, trained: str) -> None:
    before = client.post(f"/predict/{trained}?version=3", json=A_POINT).content
    assert judged_by(client, trained, "1") == "1"
    assert client.delete(f"/series/{trained}/versions/v1").status_code == 204
    assert judged_by(client, trained, "1") == 410
    assert client.get(f"/series/{trained}/versions/1").status_code == 410
    assert client.delete(f"/series/{trained}/versions/1").status_code == 410
    assert move(client, trained, "old", "1").status_code == 410
    assert client.post(f"/predict/{trained}?version=3", json=A_POINT).content == before
    assert [v["version"] for v in client.get(f"/series/{trained}/versions").json()["versions"]] == ["3", "2"]


def test_without_its_highest_version_the_one_below_is_the_latest(client: httpx.Client, trained: str) -> None:
    assert judged_by(client, trained) == "3"
    assert client.delete(f"/series/{trained}/versions/3").status_code == 204
    assert judged_by(client, trained) == "2"
    assert client.get(f"/series/{trained}").json()["latest_version"] == "2"


def test_the_number_of_a_deleted_version_is_never_given_again(client: httpx.Client, trained: str) -> None:
    client.delete(f"/series/{trained}/versions/3")
    assert fit(client, trained) == "4"
    assert client.delete(f"/series/{trained}").status_code == 204
    assert fit(client, trained) == "5"
    assert judged_by(client, trained) == "5"
    for number in "1234":
        assert judged_by(client, trained, number) == 410


def test_a_deleted_series_is_gone(client: httpx.Client, trained: str) -> None:
    assert client.delete(f"/series/{trained}").status_code == 204
    for selector in (None, "latest", "1", "3"):
        assert judged_by(client, trained, selector) == 410
    for path in ("", "/versions", "/versions/1", "/versions/latest", "/aliases"):
        assert client.get(f"/series/{trained}{path}").status_code == 410
    assert client.get("/series", params={"search": trained}).json()["series"] == []
    fit(client, trained)
    assert client.get(f"/series/{trained}").json()["aliases"] == {}, "its aliases do not come back"


def test_a_version_that_never_was_is_not_found_even_when_all_others_were_deleted(
    client: httpx.Client, trained: str
) -> None:
    client.delete(f"/series/{trained}")
    assert judged_by(client, trained, "99") == 404
    assert client.get(f"/series/{trained}/versions/99").status_code == 404


def test_deleting_what_is_not_there_is_not_found(client: httpx.Client, trained: str) -> None:
    assert client.delete(f"/series/{trained}/versions/4").status_code == 404
    assert client.delete(f"/series/{trained}/aliases/no_such").status_code == 404
    assert client.delete(f"/series/{trained}.no").status_code == 404
    assert client.delete(f"/series/{trained}.no/versions/1").status_code == 404
    assert client.delete(f"/series/{trained}.no/aliases/prod").status_code == 404


@pytest.mark.parametrize("number", ["0", "v0", "latest", "@prod", "x", "-1"])
def test_only_a_number_names_a_version_to_delete(client: httpx.Client, trained: str, number: str) -> None:
    assert client.delete(f"/series/{trained}/versions/{number}").status_code == 422
    assert client.get(f"/series/{trained}").json()["versions"] == 3


def test_an_alias_protects_its_version_from_deletion(client: httpx.Client, trained: str) -> None:
    move(client, trained, "canary", "2")
    refused = client.delete(f"/series/{trained}/versions/2")
    assert refused.status_code == 409
    assert "canary, prod" in refused.json()["detail"]
    assert judged_by(client, trained, "2") == "2"
    move(client, trained, "canary", "3")
    client.delete(f"/series/{trained}/aliases/prod")
    assert client.delete(f"/series/{trained}/versions/2").status_code == 204


# ---- aliases ---------------------------------------------------------------------------------------------


def test_moving_an_alias_is_a_release_and_moving_it_back_a_rollback(client: httpx.Client, trained: str) -> None:
    for version in ("3", "1", "2", "latest"):
        moved = move(client, trained, "prod", version)
        number = "3" if version == "latest" else version
        assert (moved.status_code, moved.json()["version"]) == (200, number)
        assert judged_by(client, trained, "@prod") == number
    fit(client, trained)
    assert judged_by(client, trained, "@prod") == "3", "it stays where it was put"


def test_an_alias_may_be_pointed_where_another_points(client: httpx.Client, trained: str) -> None:
    assert move(client, trained, "canary", "@prod").json()["version"] == "2"
    assert judged_by(client, trained, "@canary") == "2"


def test_aliases_are_listed_by_name_and_deleted_one_by_one(client: httpx.Client, trained: str) -> None:
    move(client, trained, "canary", "v3")
    listed = client.get(f"/series/{trained}/aliases").json()["aliases"]
    assert [(alias["name"], alias["version"]) for alias in listed] == [("canary", "3"), ("prod", "2")]
    assert client.get(f"/series/{trained}/aliases/prod").json() == listed[1]
    assert judged_by(client, trained, "@prod") == "2"
    assert client.delete(f"/series/{trained}/aliases/prod").status_code == 204
    assert judged_by(client, trained, "@prod") == 404
    assert client.get(f"/series/{trained}/aliases/prod").status_code == 404
    assert judged_by(client, trained, "2") == "2"


@pytest.mark.parametrize("name", ["prod", "@prod", "Blue-2.1_x", "0", "x" * 100])
def test_an_alias_has_a_name_like_these(client: httpx.Client, trained: str, name: str) -> None:
    assert move(client, trained, name, "1").json()["name"] == name.removeprefix("@")
    assert judged_by(client, trained, f"@{name.removeprefix('@')}") == "1"


@pytest.mark.parametrize("name", ["latest", "@latest", "-x", ".x", "a%20b", "a%00", "x" * 101, "%C3%A9", "@"])
def test_an_alias_has_no_other_name(client: httpx.Client, trained: str, name: str) -> None:
    answer = move(client, trained, name, "1")
    assert answer.status_code == 422
    assert [(fault["in"], fault["pointer"]) for fault in answer.json()["errors"]] == [("path", "/name")]


@pytest.mark.parametrize(
    "body", [{}, {"version": None}, {"version": ""}, {"version": "x"}, {"version": -1}, {"version": 1.5}]
)
def test_an_alias_that_points_nowhere_is_refused_and_stays(
    client: httpx.Client, trained: str, body: dict[str, Any]
) -> None:
    answer = client.put(f"/series/{trained}/aliases/prod", json=body)
    assert answer.status_code == 422
    assert [(fault["in"], fault["pointer"]) for fault in answer.json()["errors"]] == [("body", "/version")]
    assert judged_by(client, trained, "@prod") == "2"


def test_an_alias_to_a_version_that_does_not_exist_is_not_found_and_stays(client: httpx.Client, trained: str) -> None:
    for version in ("4", "@no_such"):
        assert move(client, trained, "prod", version).status_code == 404
    assert judged_by(client, trained, "@prod") == "2"


# ---- entity tags -----------------------------------------------------------------------------------------


def etag(client: httpx.Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    tag = answer.headers["ETag"]
    assert tag.startswith('"'), "a strong tag"
    assert tag.endswith('"')
    return tag


@pytest.mark.parametrize("path", ["/series/{}/versions/1", "/series/{}/versions/latest", "/series/{}/aliases/prod"])
def test_a_reader_that_is_up_to_date_gets_304(client: httpx.Client, trained: str, path: str) -> None:
    path = path.format(trained)
    tag = etag(client, path)
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = client.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_tag_of_a_version_never_changes_and_differs_from_that_of_others(client: httpx.Client, trained: str) -> None:
    tag = etag(client, f"/series/{trained}/versions/1")
    fit(client, trained)
    assert etag(client, f"/series/{trained}/versions/1") == tag
    tags = {etag(client, f"/series/{trained}/versions/{version}") for version in ("1", "2", "3", "4")}
    assert len(tags) == 4


def test_the_tag_of_an_alias_is_new_at_each_move_even_back_again(client: httpx.Client, trained: str) -> None:
    moved = [move(client, trained, "prod", version) for version in ("1", "2", "1", "1")]
    tags = [answer.headers["ETag"] for answer in moved]
    assert len(set(tags)) == 4
    assert etag(client, f"/series/{trained}/aliases/prod") == tags[-1]


def test_a_change_with_the_tag_of_another_state_is_refused(client: httpx.Client, trained: str) -> None:
    alias, version = f"/series/{trained}/aliases/prod", f"/series/{trained}/versions/1"
    stale = etag(client, alias)
    move(client, trained, "prod", "3")
    current = etag(client, alias)
    for wrong in (stale, f"W/{current}", '"other"'):
        assert move(client, trained, "prod", "1", If_Match=wrong).status_code == 412
        assert client.delete(alias, headers={"If-Match": wrong}).status_code == 412
    assert client.delete(version, headers={"If-Match": '"other"'}).status_code == 412
    assert judged_by(client, trained, "@prod") == "3"
    assert judged_by(client, trained, "1") == "1"

    moved = move(client, trained, "prod", "1", If_Match=f'"other", {current}')
    assert moved.status_code == 200
    assert client.delete(alias, headers={"If-Match": moved.headers["ETag"]}).status_code == 204
    assert client.delete(version, headers={"If-Match": etag(client, version)}).status_code == 204


def test_an_alias_is_made_only_if_new_or_moved_only_if_there(client: httpx.Client, trained: str) -> None:
    assert move(client, trained, "canary", "1", If_Match="*").status_code == 412
    assert judged_by(client, trained, "@canary") == 404
    assert move(client, trained, "canary", "1", If_None_Match="*").status_code == 200
    assert move(client, trained, "canary", "2", If_None_Match="*").status_code == 412
    assert judged_by(client, trained, "@canary") == "1"
    assert move(client, trained, "canary", "2", If_Match="*").status_code == 200


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_a_condition_that_names_no_tag_is_refused(client: httpx.Client, trained: str, header: str) -> None:
    answer = client.put(f"/series/{trained}/aliases/prod", json={"version": "1"}, headers={header: ""})
    assert answer.status_code == 422
    assert [(f["in"], f["pointer"].lower()) for f in answer.json()["errors"]] == [("header", f"/{header.lower()}")]
    assert judged_by(client, trained, "@prod") == "2"


def test_of_two_moves_with_the_same_tag_exactly_one_wins(client: httpx.Client, trained: str) -> None:
    for _ in range(5):
        tag = etag(client, f"/series/{trained}/aliases/prod")
        with ThreadPoolExecutor(8) as pool:
            moves = list(pool.map(lambda i: move(client, trained, "prod", str(i % 3 + 1), If_Match=tag), range(8)))  # noqa: B023
        assert sorted(answer.status_code for answer in moves) == [200] + [412] * 7
        (winner,) = (answer for answer in moves if answer.status_code == 200)
        assert client.get(f"/series/{trained}/aliases/prod").json() == winner.json()
        assert judged_by(client, trained, "@prod") == winner.json()["version"]


def test_of_two_that_make_the_same_new_alias_exactly_one_wins(client: httpx.Client, trained: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: move(client, trained, "new", str(i % 3 + 1), If_None_Match="*"), range(8)))
    assert sorted(answer.status_code for answer in made) == [200] + [412] * 7


def test_what_one_replica_changes_the_other_soon_answers(
    serve: Callable[..., Tidemark], database_url: str, series_id: str
) -> None:
    first, second = (serve(DATABASE_URL=database_url).client for _ in range(2))

    def soon(expected: int | str, selector: str | None = None) -> None:
        deadline = time.monotonic() + 5
        while judged_by(second, series_id, selector) != expected and time.monotonic() < deadline:
            time.sleep(0.02)
        assert judged_by(second, series_id, selector) == expected

    fit(first, series_id)
    soon("1")
    fit(first, series_id)
    soon("2")
    move(first, series_id, "prod", "1")
    soon("1", "@prod")
    move(first, series_id, "prod", "2")
    soon("2", "@prod")
    first.delete(f"/series/{series_id}/versions/1")
    soon(410, "1")
    first.delete(f"/series/{series_id}")
    soon(410)
    fit(first, series_id)
    soon("3")
