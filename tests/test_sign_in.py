"""Signing in to the pages with a key: in a browser, without JavaScript, under a prefix, and never to elsewhere."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from typing_extensions import override

from app.api_keys import Limits
from app.dashboard.sign_in import own_page
from tests.browsing import READY, Watched, fit, watch
from tests.conftest import CHROMIUM
from tests.keys import add_key, with_key
from tests.servers import Tidemark, serve_tidemark

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
HTML = {"Accept": "text/html"}
PLOT = "plot?series_id=sensor&version=1"


class Closed(NamedTuple):
    """A service that asks for keys, and some."""

    running: Tidemark
    database_url: str
    reader: str


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    folder = tmp_path_factory.mktemp("closed")
    with serve_tidemark(folder, {"AUTH": "on", "LOG_REQUESTS": "all", "LOG_LEVEL": "debug"}) as running:
        url = f"sqlite:///{folder / 'data' / 'tidemark.db'}"
        with with_key(running.url, add_key(url, "fitter")) as client:
            fit(client, "sensor", points=60, spikes=1)
        yield Closed(running, url, add_key(url, "reader.of@plant-1", "read"))


@pytest.fixture
def seen(browser: Browser, closed: Closed) -> Iterator[Watched]:
    """A page of the closed service, watched."""
    with watch(browser, closed.running) as watched:
        yield watched


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def post(closed: Closed, path: str, headers: dict[str, str] | None = None, **form: str) -> httpx.Response:
    return httpx.post(f"{closed.running.url}/{path}", data=form, headers=headers)


# ---- the way in ----------------------------------------------------------------------------------------------


@needs_chromium
def test_the_link_to_a_plot_leads_there_after_signing_in(seen: Watched, closed: Closed) -> None:
    page = seen.page
    page.goto(PLOT)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(closed.reader)
    page.keyboard.press("Enter")
    page.wait_for_selector(READY)
    assert page.url == f"{closed.running.url}/{PLOT}"
    expect(page.get_by_text("reader.of@plant-1")).to_be_visible()
    page.get_by_role("link", name="Tidemark", exact=True).click()
    expect(page.get_by_role("link", name="sensor")).to_be_visible()


@needs_chromium
def test_signing_out_ends_it(seen: Watched, closed: Closed) -> None:
    page = seen.page
    page.goto("./")
    sign_in(page, closed.reader)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.context.cookies() == []
    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible(), "nothing is kept to be shown again"
    page.goto(PLOT)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@needs_chromium
def test_it_works_without_javascript_and_says_why_a_key_is_refused(browser: Browser, closed: Closed) -> None:
    ended = datetime.now(UTC) - timedelta(hours=1)
    refused = {
        "tm_of_nobody": "not valid",
        add_key(closed.database_url, "expired", "read", expires_at=ended): "expired",
        add_key(closed.database_url, "writer", "fit,predict"): "The key writer has the scope fit,predict",
    }
    with browser.new_context(base_url=f"{closed.running.url}/", java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(PLOT)
        for key, said in refused.items():
            sign_in(page, key)
            expect(page.get_by_role("alert")).to_contain_text(said)
            expect(page.get_by_label("API key")).to_have_value("")
        sign_in(page, f"  {closed.reader} ")
        expect(page.get_by_role("heading", name="sensor")).to_be_visible()


@needs_chromium
@pytest.mark.parametrize("width", [1400, 360])
def test_the_page_fits(seen: Watched, width: int) -> None:
    seen.page.set_viewport_size({"width": width, "height": 700})
    seen.page.goto("./")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_key_that_was_made_just_now_is_known(closed: Closed) -> None:
    answer = post(closed, "sign-in", key=add_key(closed.database_url, "new", "read"), next=PLOT)
    assert (answer.status_code, answer.headers["Location"]) == (303, PLOT)


def test_the_cookie_is_for_no_script_and_no_other_site(closed: Closed) -> None:
    plain = post(closed, "sign-in", key=closed.reader).headers["Set-Cookie"]
    attributes = {part.strip().lower() for part in plain.split(";")[1:]}
    assert {"httponly", "samesite=lax", "max-age=43200"} <= attributes
    assert "secure" not in attributes
    assert not [part for part in attributes if part.startswith(("path", "domain"))]
    assert closed.reader not in plain
    secure = post(closed, "sign-in", {"X-Forwarded-Proto": "https"}, key=closed.reader)
    assert "; secure" in secure.headers["Set-Cookie"].lower()


def test_the_session_reads_and_does_nothing_else(closed: Closed) -> None:
    everything = add_key(closed.database_url, "everything")
    with httpx.Client(base_url=closed.running.url) as client:
        client.post("/sign-in", data={"key": everything})
        page = client.get(f"/{PLOT}", headers=HTML)
        assert page.status_code == 200
        assert page.headers["Cache-Control"] == "no-store"
        assert client.get("/series/sensor").status_code == 200
        assert client.post("/fit/x", json={"timestamps": [1, 2, 3], "values": [1, 2, 3]}).status_code == 401
        assert client.delete("/series/sensor").status_code == 401
        other = {"Origin": "https://evil.example"}
        assert client.get("/series/sensor", headers=other).status_code == 401, "not for another site's script"


def test_who_has_read_too_much_in_a_minute_is_told_on_a_page(closed: Closed) -> None:
    hasty = add_key(closed.database_url, "hasty", "read", limits=Limits(1))
    with httpx.Client(base_url=closed.running.url) as client:
        client.post("/sign-in", data={"key": hasty})
        answers = [client.get("/", headers=HTML) for _ in range(3)]  # a new minute may begin once
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        for answer in refused:
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert "Too much in one minute" in answer.text
            assert int(answer.headers["Retry-After"]) >= 1
            assert '"requests";r=0' in answer.headers["RateLimit"]
        assert client.get("/series").headers["Content-Type"] == "application/problem+json"


def test_who_has_no_key_yet_cannot_make_us_read_much(closed: Closed) -> None:
    assert post(closed, "sign-in", key="x" * 20_000).status_code == 413


def test_another_sites_page_cannot_sign_its_visitor_in_or_out(closed: Closed) -> None:
    other = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    for path in ("sign-in", "sign-out"):
        answer = post(closed, path, other, key=closed.reader)
        assert answer.status_code == 403
        assert "Set-Cookie" not in answer.headers


def test_who_has_signed_in_is_led_on(closed: Closed) -> None:
    with httpx.Client(base_url=closed.running.url) as client:
        client.post("/sign-in", data={"key": closed.reader})
        assert client.get(f"/sign-in?next={quote(PLOT, safe='')}").headers["Location"] == PLOT


def test_a_service_that_asks_for_no_key_has_nothing_to_sign_in_to(client: httpx.Client) -> None:
    assert client.get("/sign-in?next=plot").headers["Location"] == "plot"
    assert "Sign out" not in client.get("/", headers=HTML).text


def test_neither_key_nor_cookie_is_in_the_log(closed: Closed) -> None:
    with httpx.Client(base_url=closed.running.url) as client:
        client.post("/sign-in", data={"key": closed.reader})
        client.get("/series/sensor")
        client.get(f"/sign-in?next={closed.reader}")
        cookie = client.cookies["tidemark_session"]
    text = closed.running.log.read_text()
    assert closed.reader not in text
    assert cookie.rpartition(".")[2] not in text
    assert "reader.of@plant-1" in text, "but its name is"


# ---- and nowhere else ----------------------------------------------------------------------------------------

ELSEWHERE = (
    "https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "http:evil.example",
    "javascript:alert(1)", "data:text/html,x", "///evil.example/plot", "/plot", "plot/../../evil", "./../evil",
    ".//evil", "plot@evil.example", "plot\r\nSet-Cookie: x=1", "\tplot", " plot", "healthcheck", "sign-out",
    "", "?", "#", "%2f%2fevil",
)  # fmt: skip


@pytest.mark.parametrize("to", ELSEWHERE)
def test_signing_in_leads_to_our_own_pages_only(closed: Closed, to: str) -> None:
    assert own_page(to) == "./"
    page = httpx.get(f"{closed.running.url}/sign-in", params={"next": to}).text
    assert re.findall(r'name="next" value="([^"]*)"', page) == ["./"]
    answer = post(closed, "sign-in", key=closed.reader, next=to)
    assert (answer.status_code, answer.headers["Location"]) == (303, "./")


@pytest.mark.parametrize("to", ["plot?x=\r\nSet-Cookie: x=1", "plot?next=//evil.example", "./?search=<script>"])
def test_the_query_of_a_page_stays_a_query(closed: Closed, to: str) -> None:
    answer = post(closed, "sign-in", key=closed.reader, next=to)
    base = httpx.URL(f"{closed.running.url}/sign-in")
    led_to = base.join(answer.headers["Location"])
    assert (led_to.host, led_to.path in {"/", "/plot"}) == (base.host, True)
    assert answer.headers.get_list("Set-Cookie") == [answer.headers["Set-Cookie"]]


# ---- under a prefix ------------------------------------------------------------------------------------------


@contextmanager
def proxy(url: str, prefix: str) -> Iterator[str]:
    """What a reverse proxy does that serves us under a path of its own."""

    class Forward(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            answer = httpx.request(
                self.command,
                url + self.path.removeprefix(prefix),
                content=body,
                headers=headers,
                follow_redirects=False,
            )
            self.send_response(answer.status_code)
            for name, value in answer.headers.multi_items():
                if name not in {"content-length", "content-encoding", "connection", "date"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = forward  # noqa: N815
        do_POST = forward  # noqa: N815

        @override
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Forward) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
        server.shutdown()
        thread.join()


@needs_chromium
def test_it_works_under_a_path_of_a_proxy(browser: Browser, closed: Closed) -> None:
    with proxy(closed.running.url, "/tide") as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{url}/{PLOT}")
        sign_in(page, closed.reader)
        page.wait_for_selector(READY)
        assert page.url == f"{url}/{PLOT}"
        assert context.cookies()[0]["path"] == "/tide"
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert page.url == f"{url}/sign-in"
        assert context.cookies() == []
