"""What detectors of windows remember of the points before: without what was odd, and at the level of the history."""

import numpy as np
import pytest

from app.detectors.memory import Remembered, learn_memory, points_forgotten, remember, remember_history
from app.series import FloatArray

GRID = 1024.0  # of `kernels_joins`, written down again
HISTORY = 3_000


def noise(n: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(n)


def heartbeat(n: int) -> FloatArray:
    return 0.1 * noise(n) + 8.0 * (np.arange(n) % 20 == 7)


def stretch(history: FloatArray, later: FloatArray) -> tuple[Remembered, int]:
    """What is remembered of the later points, and how many deviations a unit is."""
    learnt = learn_memory(history)
    found = remember(learnt, np.concatenate((history[len(history) - points_forgotten(learnt) :], later)))
    assert len(found.kept) == len(later)
    return found, float(learnt["deviation"])


@pytest.mark.parametrize("off", [-300.0, -9.0, 9.0, 300.0])
def test_a_spike_is_remembered_as_it_was_expected_and_changes_no_other_point(off: float) -> None:
    plain = noise(200, 1)
    spiked = plain.copy()
    spiked[100] += off
    (calm, deviation), (found, _) = stretch(noise(HISTORY), plain), stretch(noise(HISTORY), spiked)
    assert found.came[100] / GRID == pytest.approx(spiked[100] / deviation, abs=1 / GRID)
    assert found.kept[100] / GRID == pytest.approx(found.expected[100], abs=1 / GRID)
    assert np.flatnonzero(found.jumps).tolist() == [*np.flatnonzero(calm.jumps[:100]), 100]
    others = np.delete(np.arange(200), 100)
    assert found.kept[others].tolist() == calm.kept[others].tolist()


def test_points_that_are_as_expected_are_remembered_as_they_came() -> None:
    found, deviation = stretch(noise(HISTORY), noise(300, 1))
    assert not found.jumps.any()
    assert not found.excess.any()
    np.testing.assert_allclose(found.kept / GRID, noise(300, 1) / deviation, atol=1 / GRID)


def test_a_level_that_stays_is_taken_off_after_a_while() -> None:
    found, _ = stretch(noise(HISTORY), np.concatenate((noise(100, 1), 20.0 + noise(500, 2))))
    assert np.abs(found.excess[:200]).max() < 1
    assert found.excess[-200:].min() > 18
    assert np.abs(found.kept[-200:] / GRID).max() < 6


def test_a_level_that_the_history_has_shown_stays() -> None:
    history = np.concatenate((noise(HISTORY // 2), 20.0 + noise(HISTORY // 2, 1)))
    found, _ = stretch(history, noise(600, 2))
    assert np.abs(found.excess).max() < 0.1


def test_what_comes_at_regular_times_is_kept() -> None:
    whole = heartbeat(HISTORY + 400)
    found, _ = stretch(whole[:HISTORY], whole[HISTORY:])
    assert not found.jumps.any()
    irregular = whole[HISTORY:].copy()
    irregular[212] += 8.0
    found, _ = stretch(whole[:HISTORY], irregular)
    assert found.jumps[212] > 0


def test_each_point_is_remembered_by_those_before_it_alone() -> None:
    learnt = learn_memory(heartbeat(HISTORY))
    first = points_forgotten(learnt)
    values = noise(first + 300, 3)
    values[first + 100] += 50.0
    whole = remember(learnt, values)
    for end in (1, 50, 101, 102, 150):
        part = remember(learnt, values[end - 1 : first + end])
        for some, all_ in zip(part, whole, strict=True):
            assert some.tolist() == all_[end - 1 : end].tolist()


@pytest.mark.parametrize("points", [1, 2, 3, 4, 5, 7, 8, 40, 500])
def test_a_history_is_remembered_from_its_first_point(points: int) -> None:
    values = noise(points)
    learnt = learn_memory(values)
    found = remember_history(learnt, values)
    assert {len(each) for each in found} == {points}
    assert np.isfinite(found.kept).all()
    forgotten = points_forgotten(learnt)
    assert len(remember(learnt, np.zeros(forgotten + 1)).kept) == 1
