"""The slider of the plot page in a real browser, held against the verdicts of POST /predict at the same rate."""

import re
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.browsing import MARKERS, READY, Watched, fit, in_chromium

FLAGGED = "[data-flagged]"
SHOWN = "#kinds li:visible"


def predicted(client: httpx.Client, series_id: str, **query: object) -> Mapping[str, Any]:
    """What a prediction says of the training data."""
    data = client.get("/plot/data", params={"series_id": series_id}).json()
    points = {"timestamps": data["timestamps"], "values": data["values"]}
    answer: Mapping[str, Any] = client.post(f"/predict/{series_id}", json=points, params=query).json()
    return answer


def by_kind(page: Page) -> dict[str, int]:
    """The counts of the legend."""
    entries = (entry.rsplit(" ", 1) for entry in page.locator(SHOWN).all_text_contents())
    return {kind.strip(): int(count.replace(",", "")) for kind, count in entries}


def rate_of(page: Page) -> float:
    """The rate that stands in the request to copy."""
    return float(re.findall("false_alarm_rate=(.+)", page.locator("#budget code").inner_text())[0])


@in_chromium
@pytest.mark.parametrize("detector", ["mean_std", "robust_z"])
def test_what_the_slider_comes_by_is_judged_without_the_server(
    watched: Watched, client: httpx.Client, series_id: str, detector: str
) -> None:
    fit(client, series_id, points=2_000, spikes=9, detector=detector)
    page = watched.open_plot(series_id)
    page.route("**/plot/data?*", lambda route: route.abort())
    slider = page.get_by_label("Alarm budget")
    area = slider.bounding_box()
    assert area is not None
    middle = area["y"] + area["height"] / 2
    page.mouse.move(area["x"] + area["width"] * 0.6, middle)
    page.mouse.down()
    for share in (0.65, 0.72, 0.8, 0.9):
        page.mouse.move(area["x"] + area["width"] * share, middle, steps=5)
        flagged = sum(predicted(client, series_id, false_alarm_rate=rate_of(page))["anomaly"])
        expect(page.locator(FLAGGED)).to_have_text(f"{flagged:,} of 2,000 points flagged")
        assert sum(by_kind(page).values()) == flagged
    page.mouse.up()
    expect(page.get_by_role("alert")).to_contain_text("The data could not be loaded.")
    expect(page.locator(MARKERS)).to_have_count(flagged)
    watched.errors.clear()


@in_chromium
def test_where_the_slider_rests_the_server_names_the_kinds(
    watched: Watched, client: httpx.Client, series_id: str
) -> None:
    fit(client, series_id, points=2_000, spikes=9, detector="robust_z")
    page = watched.open_plot(series_id)
    before = by_kind(page)
    page.get_by_label("Alarm budget").press("End")
    expect(page).to_have_url(re.compile("#false_alarm_rate=0.1$"))
    judged = predicted(client, series_id, false_alarm_rate=0.1)
    kinds = {kind.replace("_", " "): judged["kind"].count(kind) for kind in set(judged["kind"]) if kind}
    assert by_kind(page) == kinds != before
    expect(page.locator(MARKERS)).to_have_count(sum(kinds.values()))
    strongest = page.locator("#strongest tbody tr").first.inner_text()
    assert f"{max(judged['score']):.4g}" in strongest
    assert "spike" in strongest or "dip" in strongest


@in_chromium
def test_a_budget_can_be_shared_and_reset(watched: Watched, client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=1_000, spikes=4, detector="robust_z", params={"false_alarm_rate": 0.0004})
    page = watched.open_plot(f"{series_id}#false_alarm_rate=0.0321")
    flagged = sum(predicted(client, series_id, false_alarm_rate=0.0321)["anomaly"])
    expect(page.locator(FLAGGED)).to_have_text(f"{flagged} of 1,000 points flagged")
    assert rate_of(page) == 0.0321
    copied = page.locator("#budget [data-copy]").get_attribute("data-copy")
    assert copied == f"{client.base_url}/predict/{series_id}?version=1&false_alarm_rate=0.0321"
    reset = page.get_by_role("button", name="Reset to the model's own budget")
    reset.click()
    own = sum(predicted(client, series_id)["anomaly"])
    expect(page.locator(FLAGGED)).to_have_text(f"{own} of 1,000 points flagged")
    expect(page.locator("#budget code")).to_have_text(f"POST /predict/{series_id}?version=1")
    expect(page).not_to_have_url(re.compile("#"))
    expect(reset).to_be_disabled()


@in_chromium
@pytest.mark.parametrize("rate", ["0", "-1", "0.7", "few", ""])
def test_an_address_with_a_rate_that_is_none_shows_the_models_own(
    watched: Watched, client: httpx.Client, series_id: str, rate: str
) -> None:
    fit(client, series_id, points=100, spikes=2)
    page = watched.open_plot(f"{series_id}#false_alarm_rate={rate}")
    expect(page.get_by_role("button", name="Reset")).to_be_disabled()


@in_chromium
def test_the_slider_says_what_it_means_to_those_who_do_not_see_it(
    watched: Watched, client: httpx.Client, series_id: str
) -> None:
    fit(client, series_id, points=1_000, spikes=4, detector="robust_z")
    slider = watched.open_plot(series_id).get_by_label("Alarm budget")
    expect(slider).to_have_attribute("aria-valuetext", "1 in 1,000 normal points, about 10 false alarms a week")
    slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "1 in 893 normal points, about 11 false alarms a week")
    slider.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^1 in 1,000,000 normal points, less than one|about"))


@in_chromium
def test_a_kind_is_hidden_and_shown(watched: Watched, client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=1_000, spikes=7)
    page = watched.open_plot(series_id)
    assert by_kind(page) == {"spike": 4, "dip": 3}
    button = page.get_by_role("button", name="dip")
    button.click()
    expect(page.locator(MARKERS)).to_have_count(4)
    expect(page.locator("#strongest tbody tr")).to_have_count(4)
    expect(button).to_have_attribute("aria-pressed", "false")
    button.press("Enter")
    expect(page.locator(MARKERS)).to_have_count(7)


@in_chromium
def test_anomalies_one_after_the_other_are_one_line_of_the_list(
    watched: Watched, client: httpx.Client, series_id: str
) -> None:
    values = np.random.default_rng(1).normal(0, 1, 500)
    values[100] += 30
    values[200:205] += (10, 12, 20, 12, 10)
    points = {"timestamps": (1e9 + 60 * np.arange(500)).tolist(), "values": values.tolist()}
    client.post(f"/fit/{series_id}", json={**points, "detector": "robust_z"})
    lines = watched.open_plot(series_id).locator("#strongest tbody tr")
    expect(lines).to_have_count(2)
    expect(lines.nth(0).locator("td").nth(1)).to_have_text("1")
    expect(lines.nth(1).locator("td").nth(1)).to_have_text("5")
    expect(lines.nth(1)).to_contain_text("2001-09-09 05:08:40")


@in_chromium
def test_a_long_series_counts_what_it_does_not_draw(watched: Watched, client: httpx.Client, series_id: str) -> None:
    fit(client, series_id, points=50_000, spikes=10, detector="robust_z")
    page = watched.open_plot(series_id)
    page.get_by_label("Alarm budget").press("End")
    flagged = client.get("/plot/data", params={"series_id": series_id, "false_alarm_rate": 0.1}).json()["anomalies"]
    assert flagged > 4_000
    expect(page.locator(FLAGGED)).to_have_text(f"{flagged:,} of 50,000 points flagged")
    page.wait_for_selector(READY)
    expect(page.locator("#caption")).to_contain_text(f"{flagged:,} outside the normal band")
    page.get_by_label("Zoom in").click()
    expect(page.locator("#caption")).to_contain_text("in this range")
    assert rate_of(page) == 0.1
