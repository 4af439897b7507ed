"""Trials: how many injected anomalies a detector finds, and what it flags without any."""

import numpy as np
import pytest

from app.detectors.judging import CalibratedParams
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.detectors.robust_z import RobustZ
from app.detectors.trials import SIZELESS, SIZES, Trial, try_out, try_refitted
from app.injection import ANOMALY_KINDS
from app.series import Series


def daily(n: int) -> Series:
    values = 20 + 3 * np.sin(2 * np.pi * np.arange(n) / 48) + np.random.default_rng(0).normal(0, 0.4, n)
    return Series(1e9 + 1800.0 * np.arange(n), values)


def noise(n: int, seed: int = 0) -> Series:
    return Series(1e9 + 60.0 * np.arange(n), np.random.default_rng(seed).standard_normal(n))


def try_on_noise(k: float, rounds: int = 3) -> Trial:
    before, held_out = noise(4_000).first(3_000), noise(4_000).last(1_000)
    return try_out(MeanStd.fit(before, MeanStdParams(k=k)), before, held_out, rounds=rounds)


def row(kind: str) -> int:
    return [*ANOMALY_KINDS].index(kind)  # type: ignore[arg-type]


def test_what_is_obvious_is_found_and_what_is_small_is_not() -> None:
    trial = try_on_noise(4.5)
    assert (trial.flagged, trial.points) == (0, 1_000)
    spikes = trial.found[row("spike")]
    assert trial.tried[row("spike")].tolist() == [3] * len(SIZES)
    assert (spikes[0], spikes[-1]) == (0, 3)
    assert spikes.tolist() == sorted(spikes.tolist())
    assert np.all(trial.found <= trial.tried)


def test_what_is_flagged_anyway_is_not_found() -> None:
    trial = try_on_noise(1e-6)
    assert trial.flagged == 1_000
    assert not trial.found.any()
    assert trial.tried.any()


def test_a_detector_that_never_flags_finds_nothing() -> None:
    trial = try_on_noise(1e6)
    assert trial.flagged == trial.found.sum() == 0


def test_kinds_without_a_size_are_tried_once() -> None:
    history = daily(3_000)
    trial = try_refitted(RobustZ, history, CalibratedParams(), rounds=2)
    for kind in ANOMALY_KINDS:
        tried = trial.tried[row(kind)].tolist()
        assert tried == ([2] + [0] * (len(SIZES) - 1) if kind in SIZELESS else [2] * len(SIZES)), kind
    assert np.isnan(trial.recall[row("flatline"), 1:]).all()
    assert not np.isnan(trial.recall[row("flatline"), 0])


def test_a_season_is_missed_only_where_there_is_one() -> None:
    assert try_on_noise(3.0).tried[row("missing_season")].sum() == 0


def test_a_trial_is_the_same_each_time_and_another_with_another_seed() -> None:
    before, held_out = noise(2_000).first(1_500), noise(2_000).last(500)
    fitted = RobustZ.fit(before, CalibratedParams())
    first, again, other = (
        try_out(fitted, before, held_out, rounds=4, seed=seed).found.tolist() for seed in (0, 0, 1_000)
    )
    assert first == again != other


@pytest.mark.parametrize("points", [100, 500, 30_000])
def test_the_last_fifth_is_held_out_and_no_more_than_2000_points(points: int) -> None:
    assert try_refitted(RobustZ, noise(points), CalibratedParams(), rounds=1).points == min(points // 5, 2_000)
