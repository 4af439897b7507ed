"""The choice of a detector for a history: by its traits, and by what the candidates find of injected anomalies."""

import time
from collections.abc import Iterable
from threading import Lock
from typing import NamedTuple

import numpy as np

from app.detectors import find_detector
from app.detectors.base import Candidate, Choice, Detector, Fitted
from app.detectors.periods import find_period_points
from app.detectors.trials import try_out
from app.detectors.units import Unit
from app.series import FloatArray, Series

A_HANDFUL = 20
"""With fewer points there is no telling what is usual: the baseline."""

_FIRST = "subsequence_knn"
_FEWEST_TRIED = 100
_MOST_TRIED, _MOST_HELD_OUT = 5_000, 1_000
_CLEARLY_BETTER = 0.35
_STATES = 2
_BEARABLE_RATE = 0.03
_LEVEL_BLOCKS, _DRIFTS = 8, 1.0
_COST_OF_A_TRIAL, _COST_OF_A_FIT = 2.5, 1.5
"""As multiples of what the fit to the part that is not held out took."""
_LEVEL, _SEASON, _OTHERS = ("robust_z", "ewma"), "seasonal", ("autoregressive", "changepoint")


class _Traits(NamedTuple):
    """What a history is like."""

    points: int
    period_points: int | None
    drifts: bool

    @classmethod
    def of(cls, history: Series) -> "_Traits":
        return cls(len(history), find_period_points(history), _drifts(Unit.of(history.values).standard(history.values)))

    def __str__(self) -> str:
        period = f"a period of {self.period_points} points" if self.period_points else "no period"
        return f"{self.points:,} points with {period} and a level that {'drifts' if self.drifts else 'stays'}"

    def candidates(self) -> list[str]:
        """The detectors that suit it beside the first."""
        seasonal = [_SEASON] if self.period_points else []
        return [_LEVEL[self.drifts], *seasonal, *_OTHERS]


def choose(history: Series, params: dict[str, object], budget_s: float) -> Fitted:
    """The detector that suits a history, fitted to all of it, in about `budget_s` seconds, and why.

    params: those that all detectors have. The nearest windows are what finds most on labelled series of any kind, and
    injected anomalies tell less of real ones than that: so another detector takes their place only where the trial is
    clear. What `prepare` takes is not counted.
    """
    if len(history) < A_HANDFUL:
        return _fit("mean_std", history, params, f"Fewer than {A_HANDFUL} points: the baseline.")
    if len(history) < _FEWEST_TRIED:
        return _fit("robust_z", history, params, f"Fewer than {_FEWEST_TRIED} points: too few to try what finds most.")
    traits = _Traits.of(history)
    if len(np.unique(history.values)) <= _STATES:
        return _fit(_FIRST, history, params, f"{traits}: of two states it tells how they follow one another.")
    prepare([_FIRST, *traits.candidates()])
    started = time.monotonic()
    trials = _Trials(history.last(_MOST_TRIED), params)
    first = trials.fit(_FIRST)
    left_s = started + budget_s - time.monotonic()
    if left_s < (_COST_OF_A_TRIAL + _COST_OF_A_FIT) * trials.fitted_s:
        return _fit(_FIRST, history, params, f"{traits}: what finds most; the budget of time left none for a trial.")
    tried = [trials.run(_FIRST, first)]
    latest = started + budget_s - _COST_OF_A_FIT * trials.fitted_s
    for name in traits.candidates():
        if time.monotonic() > latest:
            break
        tried += [trials.run(name, trials.fit(name))]
    tried.sort(key=_worth, reverse=True)
    best = next(candidate for candidate in tried if candidate.detector == _FIRST)
    if _worth(tried[0]) > _worth(best) + _CLEARLY_BETTER:
        best = tried[0]
    return _fit(best.detector, history, params, f"{traits}: {_said_of(best, tried)}", (best, *_others(tried, best)))


_prepared: set[str] = set()
_preparing = Lock()


def prepare(names: Iterable[str] = (_FIRST, *_LEVEL, _SEASON, *_OTHERS)) -> None:
    """Have the loops of these detectors compiled, or loaded, for this process.

    That takes some twenty seconds where they never ran before, about one in a new process, and none from then on.
    """
    with _preparing:
        for name in names:
            if name not in _prepared:
                trials = _Trials(_sample(), {})
                trials.run(name, trials.fit(name))
                _prepared.add(name)


def _sample() -> Series:
    places = np.arange(_MOST_HELD_OUT, dtype=float)
    noise = np.random.default_rng(0).standard_normal(len(places))
    return Series(places, np.sin(places / 8.0) + 0.1 * noise)


class _Trials:
    """Fits to the first four fifths of a history, and what they find in the rest."""

    def __init__(self, history: Series, params: dict[str, object]) -> None:
        self._held_out = history.last(min(len(history) // 5, _MOST_HELD_OUT))
        self._before = history.first(len(history) - len(self._held_out))
        self._params = params
        self.fitted_s = 0.0
        """What the last fit took."""

    def fit(self, name: str) -> Detector:
        """A detector fitted to what is not held out."""
        started = time.monotonic()
        detector = find_detector(name)
        fitted = detector.fit(self._before, detector.Params.model_validate(self._params))
        self.fitted_s = time.monotonic() - started
        return fitted

    def run(self, name: str, detector: Detector) -> Candidate:
        """What it finds, each kind of anomaly counting the same."""
        started, fitted_s = time.monotonic(), self.fitted_s
        trial = try_out(detector, self._before, self._held_out, rounds=1)
        recall = _mean([_mean(row) for row in trial.recall])
        return Candidate(name, recall, trial.flagged / trial.points, fitted_s + time.monotonic() - started)


def _fit(
    name: str, history: Series, params: dict[str, object], reason: str, candidates: tuple[Candidate, ...] = ()
) -> Fitted:
    detector = find_detector(name)
    return Fitted(detector.fit(history, detector.Params.model_validate(params)), Choice(reason, candidates))


def _worth(candidate: Candidate) -> float:
    """Its recall, less where it flags more of what is normal than anybody would bear."""
    return candidate.recall * min(1.0, _BEARABLE_RATE / max(candidate.false_alarm_rate, _BEARABLE_RATE))


def _others(tried: list[Candidate], best: Candidate) -> list[Candidate]:
    return [candidate for candidate in tried if candidate is not best]


def _said_of(best: Candidate, tried: list[Candidate]) -> str:
    said = f"{best.detector} finds {best.recall:.0%} of the anomalies injected into the part held out"
    others = _others(tried, best)
    if not others:
        return f"{said}."
    return f"{said}, {others[0].detector} {others[0].recall:.0%}."


def _mean(values: FloatArray | list[float]) -> float:
    """Of the numbers that are known; 0 where none is."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _drifts(values: FloatArray) -> bool:
    """Whether the level differs more between parts of a history than the values within one."""
    blocks = np.array_split(values, _LEVEL_BLOCKS)
    within = float(np.median([block.std() for block in blocks]))
    return float(np.std([np.median(block) for block in blocks])) > _DRIFTS * within
