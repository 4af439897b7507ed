"""What the tests of pages share: a browser that reaches nothing but the service, and a history to plot."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import numpy as np
import orjson
import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from tests.conftest import CHROMIUM
from tests.servers import Tidemark

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_S = 1_755_820_800
STEP_S = 60
READY = "#plot[data-state=ready]"
MARKERS = "#plot path.point"


def in_chromium(test: Callable[..., None]) -> Callable[..., None]:
    """A test in a browser: on one database, because the pages are the same, and only where there is a browser."""
    missing = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
    return missing(pytest.mark.parametrize("tidemark", ["sqlite"], indirect=True)(test))


def fit(client: httpx.Client, series_id: str, points: int, spikes: int, **options: object) -> dict[str, object]:
    """A daily season with as many spikes, far outside the band, at least 10 points apart; a `mean_std` by default."""
    seconds = np.arange(points) * STEP_S
    values = 20 + 3 * np.sin(2 * np.pi * seconds / 86_400) + np.random.default_rng(points).normal(0, 0.4, points)
    if spikes:
        values[np.arange(1, spikes + 1) * (points // (spikes + 1))] += np.where(np.arange(spikes) % 2, -60, 60)
    body = {"timestamps": START_S + seconds, "values": values, "detector": "mean_std", **options}
    answer = client.post(f"/fit/{series_id}", content=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))
    assert answer.status_code == 200, answer.text
    return answer.json()


class Watched(NamedTuple):
    """A page, and what it must not do."""

    page: Page
    errors: list[str]
    outside: list[str]

    def open_plot(self, query: str) -> Page:
        self.page.goto(f"plot?series_id={query}")
        self.page.wait_for_selector(READY)
        return self.page


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def watch(browser: Browser, tidemark: Tidemark) -> Iterator[Watched]:
    """A page that reaches nothing but the service; fails the test when it tries, or logs an error."""
    context = browser.new_context(base_url=f"{tidemark.url}/", viewport={"width": 1400, "height": 900})
    errors: list[str] = []
    outside: list[str] = []

    def allow_only_the_service(route: Route) -> None:
        if route.request.url.startswith(f"{tidemark.url}/"):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    context.route("**/*", allow_only_the_service)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield Watched(page, errors, outside)
    context.close()
    assert outside == []
    assert errors == []
