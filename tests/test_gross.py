"""What of a history is set aside as gross, and what counts as normal because it is."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from app.detectors import find_detector
from app.detectors.gross import find_gross, stretches_of
from app.detectors.robust_z import RobustZ
from app.series import FloatArray, Series
from app.simulation import NORMAL_SERIES

N = 10_000
RNG_SEED = 4


def noise(n: int = N) -> FloatArray:
    return np.random.default_rng(RNG_SEED).standard_normal(n)


def spiked(values: FloatArray, share: float, height: float) -> tuple[FloatArray, NDArray[np.intp]]:
    """The values with so many spikes at odd times, and where they are."""
    places = np.flatnonzero(np.random.default_rng(RNG_SEED + 1).random(len(values)) < share)
    values = values.copy()
    values[places] += height
    return values, places


def gross(values: FloatArray) -> NDArray[np.intp]:
    return np.flatnonzero(find_gross(values - np.median(values), values, 0.1))


@pytest.mark.parametrize("share", [0.0005, 0.002, 0.01, 0.02])
def test_spikes_at_odd_times_are_gross_even_if_they_are_many(share: float) -> None:
    values, places = spiked(noise(), share, 10.0)
    found = gross(values)
    assert np.mean(np.isin(places, found)) > 0.95
    assert np.isin(found, places).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.standard_normal(N),
        lambda rng: rng.standard_t(3, N),
        lambda rng: rng.exponential(1.0, N),
        lambda rng: rng.lognormal(0.0, 1.0, N),
        lambda rng: rng.poisson(3.0, N).astype(np.float64),
        lambda rng: rng.poisson(0.1, N).astype(np.float64),
        lambda rng: (rng.random(N) < 0.01).astype(np.float64),
    ],
    ids=["gaussian", "t of 3", "exponential", "lognormal", "counts", "rare counts", "rare events"],
)
def test_of_the_tail_of_normal_data_next_to_nothing_is_gross(draw: Callable[[np.random.Generator], FloatArray]) -> None:
    for seed in range(10):
        assert len(gross(draw(np.random.default_rng(seed)))) < 10


@pytest.mark.parametrize("times", [[0], [0, 10], [5, 90, 300]], ids=str)
@pytest.mark.parametrize("period", [60, 700])
def test_spikes_at_the_same_times_of_each_period_are_normal(times: list[int], period: int) -> None:
    values = noise()
    values[np.isin(np.arange(N) % period, times)] += 10.0
    assert not len(gross(values))


def test_a_few_steps_are_gross_and_many_are_normal() -> None:
    off = np.zeros(N)
    for steps, expected in ((3, 3), (30, 0)):
        places = np.sort(np.random.default_rng(steps).choice(N, steps, replace=False))
        off = noise()
        off[places] += 30.0
        levels = noise() + 30.0 * np.searchsorted(places, np.arange(N), side="right")
        assert np.count_nonzero(find_gross(off, levels, 0.1)) == expected


def test_nothing_is_gross_of_few_points_of_what_is_unknown_and_of_a_constant() -> None:
    for values in (np.array([0.0, 1.0, 900.0]), np.full(100, np.nan), np.zeros(100)):
        assert not find_gross(values, np.zeros(len(values)), 0.1).any()


def test_no_more_than_the_share_that_may_be_is_gross() -> None:
    values, _ = spiked(noise(), 0.02, 10.0)
    assert not find_gross(values, values, 0.01).any()


def test_stretches_are_told_by_their_first_and_last_second() -> None:
    chosen = np.array([True, True, False, True])
    assert stretches_of(chosen, np.array([10.0, 20.0, 30.0, 40.0])).tolist() == [[10.0, 20.0], [40.0, 40.0]]
    assert stretches_of(~np.ones(4, np.bool_), np.arange(4.0)).shape == (0, 2)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 50, 51])
def test_the_median_without_a_point_is_that_of_the_others(n: int) -> None:
    for values in (noise(n), np.random.default_rng(n).integers(0, 4, n).astype(np.float64)):
        expected = RobustZ.assess_left_out(Series(np.arange(float(n)), values), RobustZ.Params()).expected
        assert expected.tolist() == [np.median(np.delete(values, i)) for i in range(n)]


@pytest.mark.parametrize("name", ["robust_z", "seasonal", "autoregressive", "ewma", "spectral_residual"])
def test_a_history_in_which_every_hundredth_point_is_a_spike_does_not_blunt_it(name: str) -> None:
    kind = find_detector(name)
    values, places = spiked(noise(), 0.01, 8.0)
    points = Series(60.0 * np.arange(float(N)), values)
    is_anomaly = kind.fit(points.first(8000), kind.Params()).score(points.last(2000)).is_anomaly
    later = places[places >= 8000] - 8000
    assert is_anomaly[later].mean() > 0.9
    assert np.delete(is_anomaly, later).mean() < 0.005


@pytest.mark.parametrize("name", ["ewma", "autoregressive", "changepoint", "sub_pca", "kmeans_windows", "lof"])
def test_restarts_of_a_counter_that_the_history_has_shown_are_no_flood_of_alarms(name: str) -> None:
    kind = find_detector(name)
    points = NORMAL_SERIES["counter"](30_000, 2)
    fitted = kind.fit(points.first(N), kind.Params())
    assert fitted.score(points.last(20_000), false_alarm_rate=0.01).is_anomaly.mean() < 0.02
