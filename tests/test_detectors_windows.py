"""What the detectors of windows find, that they are calm on normal data, and that they equal scikit-learn's."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from app.detectors import find_detector
from app.detectors.base import Detector
from app.detectors.isolation_forest import forest_scores, plain_trees
from app.detectors.kernels_windows import center_distances, kernel_distances, outlier_factors
from app.detectors.kmeans_windows import first_centers, trimmed_centers
from app.detectors.lof import learn_densities
from app.detectors.one_class_svm import learn_boundary
from app.detectors.windows import choose_level, choose_window_points, cut_windows
from app.series import FloatArray, Series
from app.simulation import simulate_sensor

WINDOWED = ("sub_pca", "kmeans_windows", "isolation_forest", "lof", "one_class_svm")
ALL = ("spectral_residual", *WINDOWED)
CYCLE = 40


def series(values: FloatArray) -> Series:
    return Series(1_700_000_000.0 + 60.0 * np.arange(len(values)), values)


def beats(n: int = 2000, noise: float = 0.1, seed: int = 1) -> FloatArray:
    return np.sin(2.0 * np.pi * np.arange(n) / CYCLE) + noise * np.random.default_rng(seed).standard_normal(n)


def inverted(values: FloatArray, start: int) -> FloatArray:
    values[start : start + CYCLE] *= -1.0
    return values


def missing(values: FloatArray, start: int) -> FloatArray:
    values[start : start + CYCLE] = 0.1 * np.random.default_rng(5).standard_normal(CYCLE)
    return values


def spiked(values: FloatArray, start: int) -> FloatArray:
    values[start + 5] += 3.0
    return values


def of_view(kind: type[Detector], values: FloatArray) -> FloatArray:
    return kind.detect(series(values), kind.Params()).score


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        (name, harm)
        for name in ("sub_pca", "kmeans_windows", "lof", "one_class_svm")
        for harm in (inverted, missing, spiked)
        if (name, harm) != ("sub_pca", missing)  # its docstring says that it misses them
    ],
)
def test_the_highest_score_lies_in_the_odd_beat(name: str, harm: Callable[[FloatArray, int], FloatArray]) -> None:
    score = of_view(find_detector(name), harm(beats(), 1000))
    around = slice(1000 - CYCLE // 2, 1000 + CYCLE + CYCLE // 2)
    elsewhere = np.delete(score, np.r_[around])
    assert score[around].max() > elsewhere.max()
    assert score[1000 : 1000 + CYCLE].max() > 1
    assert np.mean(elsewhere > 1) < 0.01


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("harm", [missing, spiked])
def test_an_odd_beat_after_the_history_is_an_anomaly_as_it_comes(
    name: str, harm: Callable[[FloatArray, int], FloatArray]
) -> None:
    kind = find_detector(name)
    values = harm(beats(3000), 2500)
    score = kind.fit(series(values[:2000]), kind.Params()).score(Series(*_after(values, 2000))).score
    assert score[500 : 500 + CYCLE].max() > 1
    assert score[500 : 500 + CYCLE].max() > score[:500].max()


def _after(values: FloatArray, first: int) -> tuple[FloatArray, FloatArray]:
    whole = series(values)
    return whole.timestamps_s[first:], whole.values[first:]


@pytest.mark.parametrize("name", ALL)
def test_one_spike_does_not_make_the_points_after_it_anomalies(name: str) -> None:
    kind = find_detector(name)
    rng = np.random.default_rng(3)
    fitted = kind.fit(series(rng.standard_normal(2000)), kind.Params())
    values = rng.uniform(-1.5, 1.5, 400)
    values[200] = 30.0
    verdicts = fitted.score(series(values))
    assert np.flatnonzero(verdicts.is_anomaly).tolist() == [200]


@pytest.mark.parametrize("name", ALL)
def test_spikes_beside_a_season_and_a_trend_are_found(name: str) -> None:
    kind = find_detector(name)
    values = 5.0 * beats(3000) + 0.002 * np.arange(3000)
    values[2500] += 15.0
    score = kind.fit(series(values[:2000]), kind.Params()).score(Series(*_after(values, 2000))).score
    assert int(np.argmax(score)) == 500
    assert score[500] > 1


@pytest.mark.parametrize("name", ["isolation_forest", "kmeans_windows", "sub_pca"])
def test_a_change_of_variance_is_found(name: str) -> None:
    kind = find_detector(name)
    rng = np.random.default_rng(4)
    fitted = kind.fit(series(rng.standard_normal(3000)), kind.Params())
    calm, wild = rng.standard_normal(300), 3.0 * rng.standard_normal(300)
    is_anomaly = fitted.score(series(np.concatenate((calm, wild)))).is_anomaly
    assert is_anomaly[300:].mean() > 10 * max(is_anomaly[:300].mean(), 0.01)


NORMAL: dict[str, Callable[[np.random.Generator, int], FloatArray]] = {
    "noise": lambda rng, n: rng.standard_normal(n),
    "heavy tails": lambda rng, n: rng.standard_t(4, n),
    "counts": lambda rng, n: rng.poisson(3.0, n).astype(np.float64),
    "trend": lambda rng, n: 0.002 * np.arange(n) + rng.standard_normal(n),
    "random walk": lambda rng, n: np.cumsum(rng.standard_normal(n)),
    "season": lambda rng, n: np.sin(2.0 * np.pi * np.arange(n) / 24) + 0.3 * rng.standard_normal(n),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("normal", NORMAL)
def test_normal_data_are_flagged_as_often_as_asked_for(name: str, normal: str) -> None:
    kind = find_detector(name)
    rates = []
    for seed in range(2):
        values = NORMAL[normal](np.random.default_rng(seed), 12_000)
        fitted = kind.fit(series(values[:4000]), kind.Params())
        rates.append(fitted.score(Series(*_after(values, 4000)), None, 0.01).is_anomaly.mean())
    assert np.mean(rates) < 0.02
    assert np.mean(rates) > 0.001, "windows that overlap are few independent ones: too calm is no fault of theirs"


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("values", [np.zeros(300), np.full(300, 7.5), np.resize([0.0, 1.0], 300)])
def test_what_never_changed_is_normal_and_a_change_of_it_is_none(name: str, values: FloatArray) -> None:
    kind = find_detector(name)
    fitted = kind.fit(series(values), kind.Params())
    again = fitted.score(Series(1_700_018_000.0 + 60.0 * np.arange(100), values[:100]))
    assert not again.is_anomaly.any()
    assert fitted.score_one(1_700_018_000.0, 60.0).is_anomaly


# ---- as in scikit-learn ------------------------------------------------------------------------------------


def some_windows(points: int = 12, n: int = 900) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Windows to learn from, values to judge, and their windows."""
    history, values = beats(n, seed=7), spiked(beats(300, seed=8), 100)
    level = float(np.sqrt(0.3))
    learn_from = cut_windows(history, np.arange(0, n - points + 1, 3), points, level)
    return learn_from, values, cut_windows(values, np.arange(300 - points + 1), points, level)


def test_local_outlier_factors_are_those_of_scikit_learn() -> None:
    from sklearn.neighbors import LocalOutlierFactor

    windows, values, judged = some_windows()
    known = learn_densities(windows, 20)
    factors = outlier_factors(
        values, values, float(np.sqrt(0.3)), known["references"], known["reach"], known["density"], 20
    )
    theirs = LocalOutlierFactor(20, novelty=True, algorithm="brute").fit(windows)
    np.testing.assert_allclose(factors, -theirs.score_samples(judged), rtol=1e-6)


@pytest.mark.parametrize("nu", [0.02, 0.3])
def test_distances_to_the_boundary_are_a_rising_function_of_scikit_learns(nu: float) -> None:
    from sklearn.svm import OneClassSVM

    windows, values, judged = some_windows()
    known = learn_boundary(windows, nu)
    distances = kernel_distances(
        values, values, float(np.sqrt(0.3)), known["vectors"], known["weights"], float(known["gamma"])
    )
    theirs = OneClassSVM(nu=nu, gamma=float(known["gamma"])).fit(windows)
    sums = theirs.score_samples(judged) / theirs.dual_coef_.sum()
    near = sums > 1e-200  # farther away theirs has underflown, and ours goes on
    np.testing.assert_allclose(distances[near], np.sqrt(-np.log(sums[near])), rtol=1e-6)
    assert near.sum() > 100
    assert np.all(distances[~near] > distances[near].max())


def test_the_scores_of_the_forest_are_those_of_scikit_learn() -> None:
    from sklearn.ensemble import IsolationForest

    rng = np.random.default_rng(1)
    learn_from, features = rng.standard_normal((500, 8)), 3.0 * rng.standard_normal((200, 8))
    theirs = IsolationForest(n_estimators=20, max_samples=128, random_state=3).fit(learn_from)
    np.testing.assert_allclose(forest_scores(plain_trees(theirs), features), -theirs.score_samples(features), rtol=1e-9)


def test_centers_explain_as_much_as_those_of_scikit_learn() -> None:
    from sklearn.cluster import KMeans

    windows, _, _ = some_windows()
    centers = trimmed_centers(windows, first_centers(windows, 8, np.random.default_rng(0)))
    theirs = KMeans(8, n_init=5, random_state=0).fit(windows)

    def inertia(of: FloatArray) -> float:
        return float(((windows[:, None] - of) ** 2).sum(axis=2).min(axis=1).sum())

    assert inertia(centers) < 1.25 * inertia(theirs.cluster_centers_)


def test_distances_to_centers_are_those_of_a_slow_loop() -> None:
    windows, values, judged = some_windows()
    centers = windows[:5]
    found = center_distances(values, values, float(np.sqrt(0.3)), np.ascontiguousarray(centers.T))
    np.testing.assert_allclose(found, np.linalg.norm(judged[:, None] - centers, axis=2).min(axis=1), rtol=1e-9)


# ---- what they share ---------------------------------------------------------------------------------------


def test_windows_are_as_long_as_a_period_and_never_longer_than_the_history_allows() -> None:
    assert choose_window_points(series(beats()), None) == CYCLE
    assert choose_window_points(series(np.random.default_rng(0).standard_normal(600)), None) == 16
    assert choose_window_points(series(beats(200)), None) == 25
    assert choose_window_points(series(beats(200)), 256) == 50
    assert [choose_window_points(series(np.zeros(n)), None) for n in (1, 2, 7, 8, 16)] == [1, 1, 1, 1, 2]


def test_levels_count_unless_they_wander() -> None:
    rng = np.random.default_rng(2)
    assert choose_level(rng.standard_normal(2000), 16) > 0.5
    assert choose_level(np.cumsum(rng.standard_normal(2000)), 16) == 0
    assert choose_level(rng.standard_normal(2000), 1) == 1


def test_a_window_that_is_asked_for_is_taken() -> None:
    for name in WINDOWED:
        kind = find_detector(name)
        fitted = kind.fit(series(beats(400)), kind.Params.model_validate({"window_points": 10}))
        assert fitted.state["model.window_points"] == 10


def is_finite(values: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(values).all())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [1, 2, 3, 9, 31, 64, 65])
def test_short_histories_are_fitted_and_detected(name: str, n: int) -> None:
    kind = find_detector(name)
    values = np.random.default_rng(n).standard_normal(n)
    assert is_finite(kind.fit(series(values), kind.Params()).score(series(values)).score)
    assert is_finite(kind.detect(series(values), kind.Params()).score)


@pytest.mark.parametrize("seed", range(3))
def test_clear_spikes_in_the_history_of_nearest_windows_are_seen_and_blunt_nothing(seed: int) -> None:
    history = simulate_sensor(2016, seed=seed, interval_s=300.0, anomalies=6)
    later = simulate_sensor(4032, seed=seed + 100, interval_s=300.0, anomalies=12)
    points = Series(later.series.timestamps_s[2016:], later.series.values[2016:])
    nearest = find_detector("subsequence_knn")
    detector = nearest.fit(history.series, nearest.Params())

    def found(planted: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> list[bool]:
        return [bool(flagged[start : start + 3].any()) for start in np.flatnonzero(planted)]

    repeated = slice(300, None)  # the first day repeats nothing, so nothing is expected there
    assert all(found(history.is_anomaly[repeated], detector.score_history(history.series).is_anomaly[repeated]))
    assert all(found(later.is_anomaly[2016:], detector.score(points).is_anomaly))
