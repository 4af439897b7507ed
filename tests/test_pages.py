"""The pages in a real browser and without one, and the reduction of what they draw against a slow oracle."""

import gzip
import html
import importlib.metadata
import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, expect

from app.services.inspection import MOST_JUDGED_SLOWLY, keep_extremes
from tests.browsing import MARKERS, READY, START_S, STEP_S, Watched, fit, in_chromium
from tests.servers import Tidemark

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ATTACK = (
    "<script>window.hacked = 1</script><img src=x onerror=window.hacked=1>\"' onfocus=window.hacked=1 autofocus x='"
)


# ---- home --------------------------------------------------------------------------------------------------


def test_an_empty_home_shows_commands_for_this_very_host_that_work(serve: Callable[..., Tidemark]) -> None:
    running = serve()
    page = running.client.get("/", headers=HTML).text
    assert "Nothing is trained yet" in page
    commands = [html.unescape(text) for text in re.findall(r'data-copy="([^"]+)"', page)]
    for command, path in zip(commands, ("/fit/sensor_01", "/predict/sensor_01"), strict=True):
        url, body = re.findall(r"POST (\S+)", command)[0], re.findall(r"-d '(.*)'", command, re.DOTALL)[0]
        assert url == running.url + path
        assert running.client.post(url, json=json.loads(body)).status_code == 200
    assert 'href="plot?series_id=sensor_01"' in running.client.get("/").text


def test_home_pages_through_all_matches_of_a_search_in_any_case(client: httpx.Client, series_id: str) -> None:
    names = sorted(f"{series_id}.Pump.{n}" for n in range(52))
    for name in names:
        fit(client, name, points=3, spikes=0)
    fit(client, f"{series_id}.valve", points=3, spikes=0)
    page = client.get("/", params={"search": f"{series_id}.pUMP"}).text
    assert re.search(r"52 of [\d,]+ series", page)
    listed = re.findall(r"plot\?series_id=([\w.]+)", page)
    following = re.findall(r'rel="next"\s+href="([^"]+)"', page)
    assert len(following) == 1
    page = client.get("/" + html.unescape(following[0])).text
    assert listed + re.findall(r"plot\?series_id=([\w.]+)", page) == names
    assert 'rel="next"' not in page


@in_chromium
def test_home_searches_while_one_types(watched: Watched, client: httpx.Client, series_id: str) -> None:
    fit(client, f"{series_id}.found", points=3, spikes=0)
    watched.page.goto("./")
    watched.page.get_by_label("Search series").fill(f"{series_id}.FOU")
    expect(watched.page.locator("tbody tr")).to_have_count(1)
    expect(watched.page).to_have_url(re.compile(r"\?search="))
    watched.page.get_by_role("link", name=f"{series_id}.found").click()
    watched.page.wait_for_selector(READY)


@in_chromium
def test_home_and_its_search_work_without_javascript(browser: Browser, client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=3, spikes=0)
    with browser.new_context(base_url=str(client.base_url), java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/")
        page.get_by_label("Search series").fill(series_id)
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_role("link", name=series_id)).to_be_visible()


# ---- the HTML of the plot ----------------------------------------------------------------------------------


def test_the_plot_page_says_what_the_version_is_without_javascript(client: httpx.Client, series_id: str) -> None:
    fitted = fit(client, series_id, points=1234, spikes=0, params={"k": 2.75})
    client.put(f"/series/{series_id}/aliases/prod", json={"version": "1"})
    page = client.get("/plot", params={"series_id": series_id, "version": "@prod"}, headers=HTML)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert re.search(rf"<h1>{re.escape(series_id)} <span>version 1</span></h1>", page.text)
    for fact in ("mean_std", "2.75", "1,234", "@prod", "latest", fitted["model_digest"], fitted["data_digest"]):
        assert str(fact) in page.text


@pytest.mark.parametrize(("version", "shown"), [(None, 2), ("", 2), ("latest", 2), ("v1", 1), ("2", 2)])
def test_the_plot_page_takes_the_selectors_of_the_api(
    client: httpx.Client, series_id: str, version: str | None, shown: int
) -> None:
    for _ in range(2):
        fit(client, series_id, points=3, spikes=0)
    query = {"series_id": series_id} if version is None else {"series_id": series_id, "version": version}
    assert f"<span>version {shown}</span>" in client.get("/plot", params=query).text


def test_the_plot_page_without_a_series_leads_home(client: httpx.Client) -> None:
    answer = client.get("/plot", follow_redirects=True, headers=HTML)
    assert answer.url.path == "/"
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("version", "status"), [("1", 410), ("7", 404), ("@nope", 404), ("one", 422), ("unknown series", 404)]
)
def test_errors_are_pages_for_browsers_and_problem_documents_for_others(
    client: httpx.Client, series_id: str, version: str, status: int
) -> None:
    query = {"series_id": series_id, "version": version}
    if version == "unknown series":
        query["version"] = "1"
    else:
        for _ in range(2):
            fit(client, series_id, points=3, spikes=0)
        client.delete(f"/series/{series_id}/versions/1")
    problem = client.get("/plot", params=query)
    assert (problem.status_code, problem.headers["content-type"]) == (status, "application/problem+json")
    assert client.get("/plot/data", params=query, headers=HTML).json()["title"] == problem.json()["title"]
    page = client.get("/plot", params=query, headers=HTML)
    assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert problem.json()["title"] in html.unescape(page.text)


@pytest.mark.parametrize("path", ["/?search={}", "/?cursor={}", "/plot?series_id={}", "/plot?series_id=a&version={}"])
def test_what_comes_from_a_query_is_escaped(client: httpx.Client, path: str) -> None:
    page = client.get(path.format(quote(ATTACK)), headers=HTML).text
    assert "<script>window" not in page
    assert "<img src=x" not in page
    assert "\"' onfocus" not in page


@in_chromium
@pytest.mark.parametrize("path", ["?search={}", "plot?series_id={}", "plot?series_id=a&version={}"])
def test_scripts_in_a_query_do_not_run(watched: Watched, path: str) -> None:
    watched.page.goto(path.format(quote(ATTACK)))
    assert watched.page.evaluate("window.hacked") is None
    watched.errors.clear()  # the status of the page itself is logged as one


def test_pages_hold_no_inline_scripts_styles_or_handlers(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=3, spikes=0)
    for path in ("/", f"/plot?series_id={series_id}", "/plot?series_id=none.such"):
        page = client.get(path, headers=HTML).text
        assert re.findall(r"<script(?![^>]* src=)|<style|<[^>]+ (?:style|on\w+)=|https?://(?!127)", page) == []


# ---- static files ------------------------------------------------------------------------------------------


def test_plotly_is_served_compressed_and_kept_for_ever(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=3, spikes=0)
    path = re.findall(r'src="(static/[^"]+/plotly.min.js)"', client.get(f"/plot?series_id={series_id}").text)[0]
    assert importlib.metadata.version("plotly") in path
    with client.stream("GET", f"/{path}", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-encoding"] == "gzip"
    assert len(raw) < 2_000_000
    plain = client.get(f"/{path}", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == gzip.decompress(raw)
    assert b"plotly.js v" in plain.content[:100]


def test_a_static_file_is_kept_for_ever_only_under_its_own_fingerprint(client: httpx.Client) -> None:
    path = re.findall(r'href="(static/[^"]+\.css)"', client.get("/").text)[0]
    assert "immutable" in client.get(f"/{path}").headers["cache-control"]
    assert client.get("/static/of-another-release/tidemark.css").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "name", ["none.js", "..%2Fpages.py", "%2e%2e/pages.py", "../pages.py", "%2Fetc%2Fpasswd", "", "."]
)
def test_nothing_but_the_static_files_is_served(client: httpx.Client, name: str) -> None:
    assert client.get(f"/static/x/{name}").status_code == 404


# ---- the data of the plot ----------------------------------------------------------------------------------


def test_a_reduced_plot_still_has_every_anomaly_and_says_how_many(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=20_000, spikes=20)
    data = client.get("/plot/data", params={"series_id": series_id, "max_points": 200}).json()
    assert len(data["values"]) <= 200
    assert (data["method"], data["points"], data["anomalies"], sum(data["anomaly"])) == ("min-max", 20_000, 20, 20)


def test_of_a_long_stretch_a_detector_that_takes_its_time_judges_the_end(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=30_000, spikes=2, detector="sub_pca")  # at 10,000 and 20,000
    query = {"series_id": series_id}
    whole = client.get("/plot/data", params=query).json()
    assert (whole["points"], whole["judged"]) == (30_000, MOST_JUDGED_SLOWLY)
    times, flagged = np.array(whole["timestamps"]), np.array(whole["anomaly"])
    unjudged = times < START_S + STEP_S * (30_000 - MOST_JUDGED_SLOWLY)
    assert not flagged[unjudged].any()
    assert {whole["scale"][place] for place in np.flatnonzero(unjudged)} == {None}
    assert START_S + STEP_S * 20_000 in times[flagged]
    end = START_S + STEP_S * (MOST_JUDGED_SLOWLY - 1)
    earlier = client.get("/plot/data", params=query | {"end": end}).json()
    assert earlier["judged"] == earlier["points"] == MOST_JUDGED_SLOWLY
    assert START_S + STEP_S * 10_000 in np.array(earlier["timestamps"])[earlier["anomaly"]]
    latest = client.get("/plot/data", params=query | {"start": times[~unjudged][0], "max_points": 50_000}).json()
    assert sum(latest["anomaly"]) == latest["anomalies"] == whole["anomalies"]
    fit(client, series_id, points=30_000, spikes=2, detector="robust_z")
    assert client.get("/plot/data", params=query).json()["judged"] == 30_000


def test_a_stretch_has_the_verdicts_of_the_whole(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=500, spikes=5)
    whole = client.get("/plot/data", params={"series_id": series_id}).json()
    query = {"series_id": series_id, "start": START_S + 100 * STEP_S, "end": "2025-08-22T05:00:00Z"}
    stretch = client.get("/plot/data", params=query).json()
    assert stretch["points"] == 201
    for column in (
        "timestamps",
        "values",
        "anomaly",
        "score",
        "expected",
        "lower",
        "upper",
        "severity",
        "p_value",
        "kind",
    ):
        assert stretch[column] == whole[column][100:301]


def test_a_bound_that_is_open_is_null(client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=100, spikes=3, params={"direction": "above"})
    data = client.get("/plot/data", params={"series_id": series_id}).json()
    assert set(data["lower"]) == {None}
    assert None not in data["upper"]


def test_every_fault_of_a_query_for_data_is_named(client: httpx.Client) -> None:
    query = {"series_id": "a..b", "version": "x", "start": "soon", "end": "nan", "max_points": 3}
    answer = client.get("/plot/data", params=query)
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {f"/{name}" for name in query}
    assert {fault["in"] for fault in answer.json()["errors"]} == {"query"}


@pytest.mark.parametrize("time", ["1_755_000_000", "\u0661\u0667", "0x68", "1e999", "-1", "inf", "+1755000000"])
def test_a_time_in_a_query_is_a_plain_number_or_rfc_3339(client: httpx.Client, series_id: str, time: str) -> None:
    fit(client, series_id, points=100, spikes=1)
    whole = client.get("/plot/data", params={"series_id": series_id, "start": "1.5e9", "end": "9999999999.5"})
    assert whole.json()["points"] == 100
    answer = client.get("/plot/data", params={"series_id": series_id, "start": time})
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/start"]


def test_only_the_plot_and_its_data_are_documented(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/plot", "/plot/data"} == {path for path in paths if path.startswith(("/plot", "/static")) or path == "/"}
    assert list(paths["/plot"]["get"]["responses"]["200"]["content"]) == ["text/html"]
    assert list(paths["/plot"]["get"]["responses"]["404"]["content"]) == ["application/problem+json"]


# ---- the plot in a browser ---------------------------------------------------------------------------------


@in_chromium
def test_the_plot_marks_each_anomaly(watched: Watched, client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=2000, spikes=7)
    page = watched.open_plot(series_id)
    expect(page).to_have_title(f"{series_id} version 1 · Tidemark")
    expect(page.locator("h1")).to_have_text(f"{series_id} version 1")
    expect(page.locator(MARKERS)).to_have_count(7)
    expect(page.locator("#strongest tbody tr")).to_have_count(7)
    expect(page.locator("#caption")).to_have_text("All 2,000 points. 7 outside the normal band.")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@in_chromium
def test_the_reference_of_the_api_lists_its_routes_without_the_internet(watched: Watched) -> None:
    watched.page.goto("docs")
    expect(watched.page.locator(".opblock-summary-path", has_text="/predict/")).to_be_visible()


@in_chromium
def test_one_steps_through_versions(watched: Watched, client: httpx.Client, series_id: str) -> None:
    for spikes in (1, 2, 3):
        fit(client, series_id, points=200, spikes=spikes)
    page = watched.open_plot(f"{series_id}&version=3")
    for older in (2, 1):
        page.get_by_label("Older version").click()
        expect(page.locator("h1")).to_have_text(f"{series_id} version {older}")
        expect(page.locator(MARKERS)).to_have_count(older)
    expect(page.get_by_label("Older version")).to_have_count(0)
    page.locator("summary", has_text="Version 1").press("Enter")
    page.get_by_role("link", name="v3").click()
    expect(page.locator("h1")).to_have_text(f"{series_id} version 3")


@in_chromium
def test_zooming_in_fetches_finer_data_up_to_every_point(
    watched: Watched, client: httpx.Client, series_id: str
) -> None:
    fit(client, series_id, points=100_000, spikes=10)
    page = watched.open_plot(series_id)
    expect(page.locator("#caption")).to_contain_text("of 100,000 points, chosen by min-max")
    area = page.locator("#plot .nsewdrag").first.bounding_box()
    assert area is not None
    page.mouse.move(area["x"] + area["width"] * 0.4, area["y"] + 50)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.6, area["y"] + 55, steps=3)
    with page.expect_response(re.compile(r"/plot/data\?.*start=.*end=")) as finer:
        page.mouse.up()
    assert finer.value.json()["points"] == pytest.approx(20_000, rel=0.1)
    expect(page.locator("#caption")).to_contain_text("points in this range, chosen by min-max")
    for _ in range(2):
        page.get_by_label("Zoom in").press("Enter")
    expect(page.locator("#caption")).to_have_text(re.compile(r"^All 5,\d\d\d points in this range\."))
    page.get_by_role("button", name="Whole range").click()
    expect(page.locator("#caption")).to_contain_text("of 100,000 points, chosen by min-max")
    expect(page.locator(MARKERS)).to_have_count(10)


@in_chromium
def test_the_plot_says_which_points_a_detector_that_takes_its_time_has_judged(
    watched: Watched, client: httpx.Client, series_id: str
) -> None:
    fit(client, series_id, points=30_000, spikes=2, detector="sub_pca")
    page = watched.open_plot(series_id)
    expect(page.locator("#caption")).to_contain_text("The last 20,000 are judged, as this detector takes its time.")
    expect(page.locator("[data-flagged]")).to_contain_text(" of 20,000 points flagged")
    page.get_by_label("Zoom in").press("Enter")
    expect(page.locator("#caption")).to_contain_text("of 15,")
    expect(page.locator("#caption")).not_to_contain_text("are judged")


@in_chromium
def test_a_million_points_open_within_3_seconds(browser: Browser, client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=1_000_000, spikes=40)
    took_s = []
    for _ in range(8):  # with empty caches each; the best counts, as other tests want the processor too
        with browser.new_context(base_url=str(client.base_url)) as context:
            page = context.new_page()
            started = time.monotonic()
            page.goto(f"/plot?series_id={series_id}")
            page.wait_for_selector(READY)
            took_s.append(time.monotonic() - started)
            expect(page.locator(MARKERS)).to_have_count(40)
            expect(page.locator("#caption")).to_contain_text("of 1,000,000 points")
        if took_s[-1] < 3:
            return
    pytest.fail(f"It took {took_s} s.")


@in_chromium
def test_data_that_fails_to_load_can_be_tried_again(watched: Watched, client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=100, spikes=2)
    page = watched.page
    page.route("**/plot/data?*", lambda route: route.abort(), times=1)
    page.goto(f"plot?series_id={series_id}")
    expect(page.get_by_role("alert")).to_contain_text("The data could not be loaded.")
    watched.errors.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(MARKERS)).to_have_count(2)
    expect(page.get_by_role("alert")).to_be_hidden()


@in_chromium
def test_pages_fit_a_phone(watched: Watched, client: httpx.Client, series_id: str) -> None:
    fit(client, f"{series_id}.{'long-name.' * 8}", points=300, spikes=3)
    watched.page.set_viewport_size({"width": 360, "height": 740})
    watched.page.goto(f"?search={series_id}")
    assert watched.page.evaluate("document.documentElement.scrollWidth") == 360
    watched.open_plot(f"{series_id}.{'long-name.' * 8}")
    assert watched.page.evaluate("document.documentElement.scrollWidth") == 360


# ---- the reduction -----------------------------------------------------------------------------------------

SMALL = st.integers(-3, 3).map(float)  # few different numbers: ties are common
POINTS = st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=200)


@given(points=POINTS, max_points=st.integers(5, 60))
def test_the_extremes_of_every_stretch_are_kept(points: list[tuple[float, float]], max_points: int) -> None:
    values, score = np.array(points).T
    kept = keep_extremes(values, score, max_points)
    n = len(values)
    assert list(kept) == sorted(set(kept.tolist()))
    assert len(kept) <= max_points
    assert {0, n - 1} <= set(kept.tolist())
    if n <= max_points:
        assert len(kept) == n
        return
    size = next(size for size in range(1, n + 1) if -(-n // size) <= (max_points - 2) // 3)
    for start in range(0, n, size):
        stretch = range(start, min(start + size, n))
        shown = [i for i in stretch if i in kept]
        for column, extreme in ((values, min), (values, max), (score, max)):
            assert extreme(column[i] for i in stretch) == extreme(column[i] for i in shown)
