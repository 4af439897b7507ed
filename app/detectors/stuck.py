"""Values that do not change: a sensor that hangs, a lamp that stays on."""

import numpy as np
from numpy.typing import NDArray

from app.series import FloatArray

_FACTOR, _SHORTEST, _LONGEST = 2, 16, 4096


def stuck_points(longest_run: int) -> int | None:
    """Equal values in a row that are too many after a history with this longest run; None where runs know no end."""
    points = max(_FACTOR * longest_run, _SHORTEST)
    return points if points <= _LONGEST else None


def are_stuck(values: FloatArray, points: int, n: int) -> NDArray[np.bool_]:
    """Which of the last n values, shape (n,), end a run of so many equal ones or more."""
    changes = np.flatnonzero(np.diff(values)) + 1
    last = np.arange(len(values) - n, len(values))
    before = np.searchsorted(changes, last, side="right")
    began = np.where(before > 0, changes[np.maximum(before, 1) - 1] if len(changes) else 0, 0)
    stuck: NDArray[np.bool_] = last - began + 1 >= points
    return stuck
