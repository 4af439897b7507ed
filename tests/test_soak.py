"""What the soak calls a leak: on samples of which it is known."""

import numpy as np
import pytest

from benchmark.soak import MOST_MB_PER_HOUR, Slope, grows, soak_section

ELAPSED_S = 600.0 + 5.0 * np.arange(240)


def memory(per_hour: float) -> np.ndarray:
    """Twenty minutes of samples that follow one another closely, as those of an allocator do."""
    chance = np.random.default_rng(1)
    noise = np.convolve(0.02 * chance.standard_normal(300), np.ones(20), "same")[:240]
    return 400 + per_hour * ELAPSED_S / 3600 + noise


@pytest.mark.parametrize("per_hour", [0.0, 2.0, 20.0, -2.0])
def test_a_slope_is_found_within_its_interval(per_hour: float) -> None:
    slope = Slope.of(ELAPSED_S, memory(per_hour))
    assert slope.lower <= per_hour <= slope.upper
    assert abs(slope.per_hour - per_hour) < MOST_MB_PER_HOUR


def test_one_sample_that_is_far_off_moves_no_slope() -> None:
    samples = memory(0.0)
    plain = Slope.of(ELAPSED_S, samples).per_hour
    samples[-1] += 500.0
    assert Slope.of(ELAPSED_S, samples).per_hour == pytest.approx(plain, abs=0.05)


def test_a_count_grows_when_its_quietest_moments_do() -> None:
    chance = np.random.default_rng(0)
    assert not grows(20.0 + chance.integers(0, 6, 240))
    assert grows(20.0 + chance.integers(0, 6, 240) + np.arange(240) // 20)


def test_the_section_of_a_soak_is_what_follows_its_heading() -> None:
    assert soak_section("# Results\n\n## Fits\n\n| a |\n") == ""
    assert soak_section("# Results\n\n## Soak\n\n| b |\n") == "\n## Soak\n\n| b |\n"
