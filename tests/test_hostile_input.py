"""Whatever a client writes where: nothing of it becomes markup, a header, a file's name, or a fault of ours."""

import itertools
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Page, expect
from typing_extensions import override

from tests.browsing import READY, Watched, fit, in_chromium
from tests.servers import Tidemark

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
MARK = "xss"
ATTACKS = (
    f"\"'><{MARK} onfocus=window.hacked=1 autofocus>",
    f"</title></textarea></script><script>{MARK};window.hacked=1</script>",
    f"javascript:window.hacked=1//{MARK}",
    f"{{{{7*7}}}}${{7*7}}{{% {MARK} %}}",
    f"{MARK}\r\nSet-Cookie: {MARK}=1\r\n\r\n<{MARK}>",
    f"../../../../etc/passwd%00{MARK}",
    f"..%2f..%2f{MARK}\\..\\..",
    f"'; DROP TABLE versions; -- {MARK}",
    f"\x00\x1b[31m\u2028\u202e\ud83d{MARK}",
    f"%s%n%(x)s{{0.__class__}}{MARK}",
)
TEXTS = ("timestamp", "value", "timestamps", "values", "detector", "params", "series_id", "version", "context")
ODD_NAMES = ("__proto__", "constructor", "-rf", ".hidden", "null", "toString", "-", "_", "NaN", "0", "javascript-1")
"""Names that are allowed and mean something to some program or other."""


class Markup(HTMLParser):
    """The tags and attributes of a page, as a browser would find them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def check(answer: httpx.Response, attack: str) -> None:
    """Refused or answered, but never obeyed."""
    where = f"{answer.request.method} {answer.request.url} {answer.text[:200]}"
    assert answer.status_code < 500, where
    assert not [value for _, value in answer.headers.items() if MARK in value and attack in value], where
    assert "set-cookie" not in answer.headers, where
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    if media_type == "text/html":
        check_page(answer.text)
    elif answer.content:
        assert media_type in {"application/json", "application/problem+json", "application/x-ndjson", "text/plain"}
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        if "json" in media_type:
            [json.loads(line) for line in answer.text.split("\n") if line]


def check_page(text: str) -> None:
    markup = Markup()
    markup.feed(text)
    assert MARK not in markup.tags
    assert text.count("<script") == text.count('<script type="module" src="static/') + text.count(
        '<script defer src="static/'
    ) + text.count('<script src="static/')
    for name, value in markup.attributes:
        assert not name.startswith("on"), (name, value)
        assert name != "style"
        if name in {"href", "src", "action", "formaction"}:
            assert not re.match(r"\s*(javascript|data|vbscript):|//|[a-z]+://", value, re.IGNORECASE), (name, value)
    assert "49${7*7}" not in text, "a template within the template"


def operations(client: httpx.Client) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Method, path, and the names of query and header parameters of all that is served."""
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            named = {place: [] for place in ("query", "header", "path")}
            for parameter in operation.get("parameters", ()):
                named[parameter["in"]].append(parameter["name"])
            yield method.upper(), path, named["query"], named["header"]
    for path, names in (("/", ["search", "cursor"]), ("/docs", []), ("/static/{fingerprint}/{name}", [])):
        yield "GET", path, names, []


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_route_obeys_what_a_client_writes(tidemark: Tidemark, attack: str) -> None:
    client = tidemark.client
    text = attack.encode("utf-8", "surrogatepass")
    raw = quote(text, safe="")
    fields = dict.fromkeys(TEXTS, attack)
    body = json.dumps(fields).encode()
    asked = 0
    for (method, path, queries, headers), accept in itertools.product(operations(client), (HTML, "application/json")):
        hostile = re.sub(r"\{\w+\}", lambda _: raw, path)
        sent = {name: re.sub(rb"[\x00-\x1f\x7f]", b"", text) for name in (*headers, "User-Agent", "X-Request-ID")}
        sent["Accept"] = accept.encode()
        targets = {f"{hostile}?{'&'.join(f'{name}={raw}' for name in queries)}", f"{hostile}?{raw}={raw}", hostile}
        for target in targets:
            answer = client.request(method, target, content=None if method == "GET" else body, headers=sent)
            check(answer, attack)
            asked += 1
    assert asked > 90


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_line_of_many_is_answered_in_words_of_ours(client: httpx.Client, attack: str) -> None:
    line = json.dumps(dict.fromkeys(TEXTS, attack) | {attack: attack})
    for path in ("/fit", "/predict", "/detect"):
        answer = client.post(path, content=f"{line}\n{line}\n", headers={"Content-Type": "application/x-ndjson"})
        check(answer, attack)
        assert answer.headers["Content-Type"].startswith("application/"), "never what a browser renders"


def test_no_name_becomes_a_path(tidemark: Tidemark) -> None:
    """Files are named by what is in them, so there is no name that leads out of their folder."""
    folder = tidemark.log.parent
    for name in ODD_NAMES:
        fit(tidemark.client, f"named-{name}", points=5, spikes=0)
    fit(tidemark.client, "named", points=5, spikes=0)
    for attack in ATTACKS:
        tidemark.client.post("/fit", content=json.dumps({"series_id": attack, "timestamps": [1, 2], "values": [1, 2]}))
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert any(path.endswith(".parquet") for path in files)
    assert [path for path in files if "named" in path or MARK in path or "passwd" in path] == []


# ---- in a browser --------------------------------------------------------------------------------------------


def open_and_try(page: Page, path: str) -> None:
    page.goto(path)
    assert page.evaluate("window.hacked") is None


@in_chromium
def test_no_query_runs_in_a_page(watched: Watched, client: httpx.Client) -> None:
    fit(client, "plain", points=20, spikes=1)
    paths = ("?search={}", "?cursor={}", "?{}", "plot?series_id={}", "plot?series_id=plain&version={}", "docs?url={}",
             "plot?series_id=plain&{0}={0}#{0}", "nowhere/{}", "docs#/{}")  # fmt: skip
    for attack in ATTACKS[:2]:
        for path in paths:
            open_and_try(watched.page, path.format(quote(attack, safe="")))
    unexpected = [error for error in watched.errors if "Failed to load resource" not in error]
    assert unexpected == []
    watched.errors.clear()


@in_chromium
def test_a_series_may_have_any_name_that_is_allowed(watched: Watched, client: httpx.Client) -> None:
    for name in (*ODD_NAMES[:5], "x" * 200):
        fit(client, name, points=30, spikes=1)
        for alias in ("constructor", "toString", "a" * 100):
            client.put(f"/series/{name}/aliases/{alias}", json={"version": "1"}).raise_for_status()
        watched.open_plot(name)
        expect(watched.page.locator("h1")).to_contain_text(name)
        expect(watched.page.locator(".chip.alias").first).to_contain_text("@")
    watched.page.goto("?search=__proto__")
    watched.page.get_by_role("link", name="__proto__", exact=True).click()
    watched.page.wait_for_selector(READY)


@in_chromium
def test_the_reference_takes_its_document_from_nowhere_else(watched: Watched) -> None:
    watched.page.goto("docs?url=http://elsewhere.example/openapi.json&configUrl=http://elsewhere.example/c.json")
    expect(watched.page.get_by_text("Tidemark").first).to_be_visible()
    watched.page.locator(".opblock-summary").first.click()
    expect(watched.page.locator(".opblock-body").first).to_be_visible()
