"""What guards a browser's user: headers of answers, other sites, other names of the host."""

from collections.abc import Iterator

import httpx
import pytest

from app.api.headers import DATA_POLICY, PAGE_POLICY
from app.config import Settings
from tests.browsing import Watched, fit, in_chromium
from tests.servers import Tidemark, serve_tidemark

FOUR_POINTS = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0]}
POINT = {"timestamp": 5, "value": 13.0}
LISTED = "https://grafana.example.com"
KEY = "tm_of_the_environment"
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidemark]:
    """A service for pages of a listed origin, under listed names."""
    settings = {
        "CORS_ORIGINS": f"{LISTED}, http://localhost:3000",
        "ALLOWED_HOSTS": "127.0.0.1,Tidemark.example.com,*.internal.example.com,[::1]",
    }
    with serve_tidemark(tmp_path_factory.mktemp("shared"), settings) as running:
        fit(running.client, "s", points=20, spikes=1)
        yield running


# ---- headers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("HEAD", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/series", 200),
        ("GET", "/nowhere", 404),
        ("POST", "/livez", 405),
        ("GET", "/plot?series_id=a..b", 422),
        ("POST", "/fit/a..b", 422),
        ("OPTIONS", "/fit/a", 405),
    ],
)
def test_data_may_not_load_anything_or_be_framed_or_shared(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    check_common(answer)
    assert answer.headers["Content-Security-Policy"] == DATA_POLICY
    assert answer.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/docs", 200), ("/plot?series_id=none", 404), ("/plot?series_id=a..b", 422)]
)
def test_pages_may_load_what_is_ours_only(client: httpx.Client, path: str, status: int) -> None:
    answer = client.get(path, headers=HTML)
    assert answer.status_code == status
    check_common(answer)
    assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin", "on loopback browsers heed it"
    assert "unsafe" not in PAGE_POLICY


def test_a_static_file_is_no_secret_and_says_itself_how_long_it_is_kept(client: httpx.Client) -> None:
    page = client.get("/").text
    answer = client.get("/" + page.partition('rel="stylesheet" href="')[2].partition('"')[0])
    check_common(answer)
    assert answer.headers["Cache-Control"].startswith("public")


def check_common(answer: httpx.Response) -> None:
    names = [name.lower() for name, _ in answer.headers.raw]
    assert len(names) == len(set(names)), "none comes twice"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Strict-Transport-Security" not in answer.headers, "it came over plain HTTP"
    assert "Server" not in answer.headers


def test_over_a_proxys_https_browsers_are_told_to_stay_there(client: httpx.Client) -> None:
    answer = client.get("/livez", headers={"X-Forwarded-Proto": "https"})
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


@in_chromium
def test_the_policy_holds_where_a_page_is_attacked_from_within(watched: Watched, client: httpx.Client) -> None:
    """As if an escape were missing somewhere: what is written into the page does not run, and sends nothing away."""
    watched.page.goto("./")
    watched.page.evaluate(
        """() => {
            const main = document.querySelector("main");
            main.innerHTML = '<img src=x onerror="window.hacked = 1"><form action="http://elsewhere.example"></form>';
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            main.append(script);
            fetch("http://elsewhere.example/").catch(() => { window.kept = 1; });
        }"""
    )
    watched.page.wait_for_function("window.kept === 1")
    watched.page.wait_for_timeout(200)
    assert watched.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in error for error in watched.errors)
    watched.errors.clear()
    assert client.get("/livez").status_code == 200


@in_chromium
def test_no_page_is_shown_in_a_frame_of_another(watched: Watched, tidemark: Tidemark) -> None:
    watched.page.set_content(f"<iframe src='{tidemark.url}/'></iframe>")
    watched.page.wait_for_timeout(500)
    assert "What is trained" not in watched.page.frames[-1].content()
    assert any("frame-ancestors" in error for error in watched.errors)
    watched.errors.clear()


# ---- pages of other origins ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization", "Idempotency-Key", "If-Match", "X-Request-ID"])
def test_a_listed_origin_may_send_what_the_api_takes(shared: Tidemark, name: str) -> None:
    asked = {"Origin": LISTED, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": name.lower()}
    answer = shared.client.options("/series/s/aliases/prod", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED
    assert name in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/predict/s", 200), ("POST", "/fit/other", 200), ("GET", "/nowhere", 404), ("POST", "/fit/a..b", 422)],
)
def test_a_listed_origin_may_read_every_answer(shared: Tidemark, method: str, path: str, status: int) -> None:
    headers = {"Origin": LISTED, "Sec-Fetch-Site": "cross-site"}
    body = POINT if path.startswith("/predict") else FOUR_POINTS
    answer = shared.client.request(method, path, json=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED
    assert "Origin" in answer.headers["Vary"]
    assert {"ETag", "Retry-After", "RateLimit", "X-Request-ID"} <= set(
        answer.headers["Access-Control-Expose-Headers"].split(", ")
    )


def test_another_origin_may_neither_read_nor_write(shared: Tidemark) -> None:
    other = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert "Access-Control-Allow-Origin" not in shared.client.get("/series", headers=other).headers
    refusal = shared.client.post("/fit/s", json=FOUR_POINTS, headers=other)
    assert refusal.status_code == 403
    assert "CORS_ORIGINS" in refusal.json()["detail"]
    preflight = shared.client.options("/fit/s", headers=other | {"Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 403
    assert preflight.headers["Content-Type"] == "application/problem+json"
    assert "Access-Control-Allow-Origin" not in preflight.headers


@pytest.mark.parametrize(
    "origin", [f"{LISTED}.evil.example", "https://grafana.example.com:444", "http://grafana.example.com", "null"]
)
def test_an_origin_is_compared_as_a_whole(shared: Tidemark, origin: str) -> None:
    assert shared.client.post("/fit/s", json=FOUR_POINTS, headers={"Origin": origin}).status_code == 403


def test_by_default_no_origin_may_read(client: httpx.Client) -> None:
    for method, headers in (("GET", {}), ("OPTIONS", {"Access-Control-Request-Method": "GET"})):
        answer = client.request(method, "/series", headers={"Origin": LISTED} | headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_any_origin_may_when_the_setting_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serve_tidemark(tmp_path_factory.mktemp("open"), {"CORS_ORIGINS": "*"}) as running:
        headers = {"Origin": "https://anywhere.example", "Sec-Fetch-Site": "cross-site"}
        answer = running.client.post("/fit/s", json=FOUR_POINTS, headers=headers)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
        assert "Access-Control-Allow-Credentials" not in answer.headers


@in_chromium
def test_a_script_of_a_listed_origin_calls_the_api_in_a_browser(
    watched: Watched, tmp_path_factory: pytest.TempPathFactory, tidemark: Tidemark
) -> None:
    """The page is one of another service: an origin of its own, but for the policy that forbids it to connect."""
    with serve_tidemark(tmp_path_factory.mktemp("called"), {"CORS_ORIGINS": tidemark.url}) as called:
        fit(called.client, "s", points=20, spikes=1)
        context = watched.page.context.browser.new_context(bypass_csp=True)  # type: ignore[union-attr]
        page = context.new_page()
        page.goto(f"{tidemark.url}/")
        found = page.evaluate(
            """async url => {
                const headers = {"Content-Type": "application/json", "X-API-Key": "k", "X-Request-ID": "from-afar"};
                const body = JSON.stringify({timestamp: 5, value: 13});
                const answer = await fetch(`${url}/predict/s`, {method: "POST", headers, body});
                const version = await fetch(`${url}/series/s/versions/1`);
                const missing = await fetch(`${url}/series/none`);
                return [(await answer.json()).model_version, answer.headers.get("X-Request-ID"),
                    version.headers.get("ETag") !== null, (await missing.json()).type];
            }""",
            called.url,
        )
        context.close()
        assert found == ["1", "from-afar", True, "/problems/series-not-found"]


@pytest.mark.parametrize("text", ["grafana.example.com", "https://a.example/path", "https://a.example,b", "ftp://x"])
def test_what_is_no_origin_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="cors_origins"):
        Settings(_env_file=None, cors_origins=text)


# ---- names of the host ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("tidemark.example.com", True),
        ("TIDEMARK.example.com:8443", True),
        ("tidemark.example.com.", True),
        ("a.internal.example.com", True),
        ("[::1]:8000", True),
        ("127.0.0.1", True),
        ("internal.example.com", False),
        ("evil.example", False),
        ("tidemark.example.com.evil.example", False),
        ("eviltidemark.example.com", False),
        ("tidemark.example.com:80:80", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_only_listed_hosts_are_served_on_every_way(shared: Tidemark, host: str, *, is_ours: bool) -> None:
    for method, path, body in (("GET", "/", None), ("POST", "/predict/s", POINT), ("POST", "/fit/again", FOUR_POINTS)):
        answer = shared.client.request(method, path, json=body, headers={"Host": host})
        assert (answer.status_code == 200) is is_ours
        if not is_ours:
            assert answer.status_code == 400
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["type"] == "/problems/host-not-allowed"
            assert "ALLOWED_HOSTS" in answer.json()["detail"]
            assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_monitors_ask_by_address(shared: Tidemark, path: str) -> None:
    assert shared.client.get(path, headers={"Host": "10.0.0.7:8000"}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.localhost.example", "tidemark.com:80"]
)
def test_on_loopback_a_strangers_page_cannot_reach_us_by_a_name_of_its_own(client: httpx.Client, host: str) -> None:
    """It is loaded from its server; then the name resolves to 127.0.0.1, and the browser takes us for the same site."""
    page = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert client.get("/series", headers={"Host": host}).status_code == 400
    assert client.post("/fit/s", json=FOUR_POINTS, headers=page).status_code == 400
    assert client.post("/predict/s", json=POINT, headers=page).status_code == 400


@pytest.mark.parametrize(
    "host", ["localhost:8000", "tidemark", "app.localhost", "[::1]:9", "192.168.1.7", "host.docker.internal:8000"]
)
def test_on_loopback_forwarded_ports_and_containers_still_reach_us(client: httpx.Client, host: str) -> None:
    assert client.get("/series", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "settings",
    [{"ALLOWED_HOSTS": "*"}, {"HOST": "0.0.0.0", "AUTH": "off"}, {"API_KEY": KEY}],
    ids=["any", "all interfaces", "with keys"],
)
def test_any_host_is_served_where_the_settings_say_so(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]
) -> None:
    with serve_tidemark(tmp_path_factory.mktemp("any"), settings) as running:
        headers = {"Host": "tidemark.example.com", "X-API-Key": KEY}
        assert httpx.get(f"{running.url}/series", headers=headers).status_code == 200


@pytest.mark.parametrize("text", ["https://a.example", "a.example:8000", "a.*.example", "*example.com", "a b"])
def test_what_is_no_name_of_a_host_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="allowed_hosts"):
        Settings(_env_file=None, allowed_hosts=text)
