"""The budgets of the plot: its document says for each false alarm rate what the detector itself says there."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import app.dashboard
from app.bootstrap import Services
from app.dashboard import plot_data
from app.detectors import DETECTORS, find_detector
from app.detectors.base import KINDS, Detector, Verdicts
from app.series import Series
from app.services.budgets import RATES
from app.simulation import NORMAL_SERIES, simulate_sensor

STATIC = Path(app.dashboard.__file__).parent / "static"
POINTS = 700
PLACES = (0, 15, 40, 62, 80, 95, 100)
Document = Mapping[str, Any]


def sensor(points: int = POINTS) -> Series:
    return simulate_sensor(points, seed=3, interval_s=1800.0, anomalies=points // 100).series


def far_from_zero() -> Series:
    return Series(sensor().timestamps_s, 1e9 + 0.01 * sensor().values)


def counts() -> Series:
    """Few different values: many points lie just at a threshold."""
    return NORMAL_SERIES["counts"](POINTS, 1)


HISTORIES: tuple[tuple[Callable[[], Series], dict[str, object]], ...] = (
    (sensor, {}),
    (sensor, {"direction": "below", "min_dev_from_expected": 3.0}),
    (sensor, {"direction": "above", "min_rel_dev_from_expected": 0.1, "false_alarm_rate": 0.02}),
    (counts, {}),
    (far_from_zero, {}),
)


@pytest.fixture
def services(build_services: Callable[..., Services], tmp_path: Path) -> Services:
    """On one database, because what is plotted is the same on each."""
    from app.migrations import migrate

    services = build_services(database_url=f"sqlite:///{tmp_path / 'tidemark.db'}")
    migrate(services.database)
    return services


def fit(services: Services, name: str, history: Series, **params: object) -> Detector:
    detector = find_detector(name)
    version = services.training.fit("s", history, detector, detector.Params.model_validate(params))
    return services.registry.load("s", version.version).detector


def judge(detector: Detector, history: Series, rate: float) -> Verdicts:
    """What it says of its own history."""
    return detector.score_history(history, rate)


def ask(services: Services, **options: Any) -> Document:
    document: Document = json.loads(plot_data.encode(services.inspection.view("s", 0, **options)))
    return document


def flagged(document: Document, place: int) -> NDArray[np.bool_]:
    """By the rule that the browser goes by."""
    budgets = document["budgets"]
    values, expected, scale = (
        np.array([np.inf if number is None else number for number in document[name]])
        for name in ("values", "expected", "scale")
    )
    off = values - expected
    below, above = (np.inf if budgets[side][place] is None else budgets[side][place] for side in ("below", "above"))
    floor = np.maximum(budgets["min_dev_from_expected"], budgets["min_rel_dev_from_expected"] * np.abs(expected))
    return np.abs(off) > np.maximum(np.where(off > 0, above, below) * scale, floor)


@pytest.mark.parametrize("name", DETECTORS)
def test_the_browser_flags_at_each_rate_what_the_detector_flags(services: Services, name: str) -> None:
    for make, params in HISTORIES:
        history = make()
        detector = fit(services, name, history, **params)
        document = ask(services)
        budgets = document["budgets"]
        for place in {*PLACES} - {budgets["own"]}:
            judged = judge(detector, history, budgets["false_alarm_rate"][place]).is_anomaly
            context = f"{make.__name__} {params} at {budgets['false_alarm_rate'][place]}"
            assert flagged(document, place).tolist() == judged.tolist(), context
            assert budgets["anomalies"][place] == np.count_nonzero(judged), context


@pytest.mark.parametrize("name", ["mean_std", "robust_z", "seasonal"])
def test_the_band_at_another_rate_is_that_of_the_detector(services: Services, name: str) -> None:
    history = sensor()
    detector = fit(services, name, history, min_dev_from_expected=2.0)
    document = ask(services)
    for place in PLACES:
        judged = judge(detector, history, document["budgets"]["false_alarm_rate"][place])
        for bound, side, sign in ((judged.lower, "below", -1), (judged.upper, "above", 1)):
            width = np.maximum(np.array(document["scale"]) * document["budgets"][side][place], 2.0)
            np.testing.assert_allclose(np.array(document["expected"]) + sign * width, bound, rtol=1e-9)


def test_the_verdicts_are_those_of_the_rate_that_is_asked_for(services: Services) -> None:
    history = sensor()
    detector = fit(services, "robust_z", history)
    document = ask(services, false_alarm_rate=0.0333)
    judged = judge(detector, history, 0.0333)
    assert document["budgets"]["false_alarm_rate"][document["budgets"]["chosen"]] == 0.0333
    assert document["budgets"]["false_alarm_rate"][document["budgets"]["own"]] == 0.001
    assert document["anomaly"] == judged.is_anomaly.tolist()
    assert document["kind"] == [KINDS[kind] for kind in judged.kind]
    assert document["anomalies"] == document["budgets"]["anomalies"][document["budgets"]["chosen"]]


def test_counts_are_those_of_all_points_where_few_are_drawn(services: Services) -> None:
    fit(services, "robust_z", sensor(5_000))
    reduced, whole = ask(services, max_points=100), ask(services)
    assert len(reduced["scale"]) == len(reduced["values"]) <= 100
    assert reduced["budgets"] == whole["budgets"]


def test_rates_are_an_eighth_apart_and_the_models_own_is_one_of_them(services: Services) -> None:
    fit(services, "mean_std", sensor(), k=2.5)
    budgets = ask(services)["budgets"]
    rates = budgets["false_alarm_rate"]
    assert rates == sorted({*RATES.tolist(), rates[budgets["own"]]})
    assert rates[budgets["own"]] == pytest.approx(math.erfc(2.5 / math.sqrt(2)), rel=1e-3)
    assert (RATES[0], RATES[-1]) == (1e-6, 0.1)
    assert np.all(RATES[1:] / RATES[:-1] < 1.15)
    for side in ("below", "above"):
        assert np.all(np.diff(budgets[side]) < 0)
    assert budgets["anomalies"] == sorted(budgets["anomalies"])


def test_the_interval_is_known_whatever_the_detector_keeps(services: Services) -> None:
    assert math.isnan(fit(services, "mean_std", sensor()).interval_s)
    assert ask(services)["interval_s"] == 1800.0
    fit(services, "mean_std", sensor(1))
    assert ask(services)["interval_s"] is None


def test_one_point_has_budgets_too(services: Services) -> None:
    fit(services, "robust_z", sensor(1), max_false_alarms_per_week=3.0)
    document = ask(services)
    assert document["budgets"]["false_alarm_rate"][document["budgets"]["own"]] == 0.001
    assert None not in document["lower"]


def test_the_page_has_a_mark_a_colour_and_a_name_for_every_kind() -> None:
    marks = re.findall(r'^    \["(\w+)", ', (STATIC / "kinds.js").read_text(), re.MULTILINE)
    assert marks == [*(kind for kind in KINDS if kind), "unnamed"]
    style = (STATIC / "tidemark.css").read_text()
    for kind in marks:
        assert len(re.findall(rf"--kind-{kind}: #", style)) == 2, "a light one and a dark one"
        assert f".kind.{kind} " in style
