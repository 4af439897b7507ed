"""What is measured of a detector on a series: a row for each regime, and one where it fails."""

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from app.simulation import simulate_sensor
from benchmark.accuracy.datasets import LabelledSeries
from benchmark.accuracy.metrics import auc_pr, event_f1, false_alarm_points, vus
from benchmark.accuracy.peers import PEERS, judge_peer
from benchmark.accuracy.regimes import (
    ARRIVAL,
    BATCH,
    CURVE,
    SETTLED,
    Fitted,
    Outcome,
    judge_batch,
    load_detector,
)

_WARM_POINTS = 700
_WARM_PREFIX = 500


class Task(NamedTuple):
    """A detector of the table, one by its place, or a peer; a series; and the regimes to run it in."""

    labelled: LabelledSeries
    detector: str
    regimes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of a detector on a series in a regime. None is what could not be, or does not apply."""

    source: str
    series: str
    detector: str
    regime: str
    points: int
    lookahead_points: int | None = None
    vus_pr: float | None = None
    vus_roc: float | None = None
    auc_pr: float | None = None
    event_f1: float | None = None
    false_alarms: int | None = None
    normal_points: int | None = None
    """Normal points with a verdict."""
    seconds: float | None = None
    memory_mb: float | None = None
    error: str | None = None


def measure(task: Task) -> list[Row]:
    """The rows of one task: at least one for each regime."""
    warnings.simplefilter("ignore")  # of other libraries; ours has none
    _warm(task.detector)
    return list(_measure(task))


def failures(task: Task, error: Exception) -> list[Row]:
    """The rows of a task of which nothing could be measured."""
    return [_failure(task, regime, error) for regime in task.regimes]


def _measure(task: Task) -> Iterator[Row]:
    labelled, name, regimes = task
    if name in PEERS:
        for regime in regimes:
            yield _row(task, regime, functools.partial(judge_peer, name, regime, labelled))
        return
    if BATCH in regimes:
        yield _row(task, BATCH, lambda: judge_batch(load_detector(name), labelled))
    online = [regime for regime in regimes if regime != BATCH]
    if not online:
        return
    try:
        fitted = Fitted(load_detector(name), labelled)
    except Exception as error:  # noqa: BLE001 -- whatever fails is a result
        yield from (_failure(task, regime, error) for regime in online)
        return
    judge = functools.cache(fitted.judge)
    lookaheads = {ARRIVAL: [0], SETTLED: fitted.lookaheads[-1:], CURVE: fitted.lookaheads}
    for regime in online:
        for lookahead in lookaheads[regime]:
            yield _row(task, regime, functools.partial(judge, lookahead))


def _row(task: Task, regime: str, judge: Callable[[], Outcome]) -> Row:
    labelled = task.labelled
    labels = labelled.labels
    try:
        outcome = judge()
        judged = labels[outcome.first :]
        volumes = precision = f1 = alarms = None
        if labels.any() and not labels.all():
            volumes = vus(labels, outcome.scores, labelled.vus_window)
            precision = auc_pr(labels, outcome.scores)
        if outcome.is_anomaly is not None:
            alarms = false_alarm_points(judged, outcome.is_anomaly)
            f1 = event_f1(judged, outcome.is_anomaly) if judged.any() else None
    except Exception as error:  # noqa: BLE001 -- whatever fails is a result
        return _failure(task, regime, error)
    return Row(
        source=labelled.source,
        series=labelled.name,
        detector=task.detector,
        regime=regime,
        points=len(labels),
        lookahead_points=outcome.lookahead_points,
        vus_pr=volumes and volumes.vus_pr,
        vus_roc=volumes and volumes.vus_roc,
        auc_pr=precision,
        event_f1=f1,
        false_alarms=alarms,
        normal_points=None if alarms is None else int((~judged).sum()),
        seconds=outcome.cost.seconds,
        memory_mb=outcome.cost.memory_mb,
    )


def _failure(task: Task, regime: str, error: Exception) -> Row:
    labelled = task.labelled
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return Row(labelled.source, labelled.name, task.detector, regime, len(labelled.values), error=said)


@functools.cache
def _warm(name: str) -> None:
    """Import and compile what a detector needs, once in each process, so that this counts for no series."""
    simulated = simulate_sensor(_WARM_POINTS, anomalies=3)
    labelled = LabelledSeries(
        name="",
        source="",
        timestamps_s=simulated.series.timestamps_s,
        values=simulated.series.values,
        labels=simulated.is_anomaly,
        train_prefix=_WARM_PREFIX,
        period_points=None,
        vus_window=20,
    )
    regimes = tuple(PEERS[name].run) if name in PEERS else (BATCH, SETTLED, ARRIVAL)
    for _ in _measure(Task(labelled, name, regimes)):
        pass  # one that fails here fails on the series too, where it counts
