"""The report: tables of what was measured, by regime and by source, and the curve of delay against accuracy."""

import statistics
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from benchmark.accuracy.peers import PEERS
from benchmark.accuracy.regimes import ARRIVAL, BATCH, CURVE, SETTLED
from benchmark.accuracy.runs import Row

Key = TypeVar("Key")

TITLES = {
    BATCH: ("Batch", "The whole series at once, all points in view, without a fit."),
    SETTLED: (
        "Settled",
        "Fitted to the prefix; each later point is judged with as many of the points after it as are of use.",
    ),
    ARRIVAL: ("On arrival", "Fitted to the prefix; each later point is judged by what came before it."),
}

METHOD = """Means are over the series; false alarms and times over all their points. VUS and AUC need anomalies and \
normal points, and event-wise F1 an anomaly among the points with a verdict: where there are none, a series counts for \
false alarms and times only. A failed series counts for no mean and is named below.

F1 and false alarms are those of the verdicts at default parameters: one false alarm in 1,000 normal points is asked \
of every detector but `mean_std`, which flags what is 3 standard deviations off. A dash stands for a peer that has \
scores and no verdicts.

In *settled* and *on arrival* the points of the prefix, which have no verdicts, take part in VUS and AUC by the \
deviations that the detector found when each was left out of the fit, over the threshold of that fit. `mean_std` \
leaves none out, and scores them by the fit.

Times are those of one processor, fit and scoring together; code was compiled before. Memory is the most that was \
taken for a series beyond what the process held before."""

_COLUMNS: Sequence[tuple[str, Callable[[Sequence[Row]], str]]] = (
    ("VUS-PR", lambda rows: _number(_mean(row.vus_pr for row in rows))),
    ("VUS-ROC", lambda rows: _number(_mean(row.vus_roc for row in rows))),
    ("AUC-PR", lambda rows: _number(_mean(row.auc_pr for row in rows))),
    ("event F1", lambda rows: _number(_mean(row.event_f1 for row in rows))),
    ("false alarms / 1,000", lambda rows: _number(_ratio(rows, "false_alarms", "normal_points", 1_000), 2)),
    ("s / 10,000 points", lambda rows: _number(_ratio(rows, "seconds", "points", 10_000), 2)),
    (
        "peak MB",
        lambda rows: _number(max((row.memory_mb for row in rows if row.memory_mb is not None), default=None), 0),
    ),
    ("series", lambda rows: str(sum(row.error is None for row in rows))),
    ("failed", lambda rows: str(sum(row.error is not None for row in rows))),
)


def write_report(rows: Sequence[Row], header: str, folder: Path) -> None:
    """Write ACCURACY.md into a folder, and the plot beside it where there is a curve to draw."""
    tables = [_of_regime(regime, [row for row in rows if row.regime == regime]) for regime in TITLES]
    curves = delay_curves(rows)
    if curves:
        draw(curves, folder / "accuracy_delay.png")
    parts = [header, *filter(None, tables), _of_curves(curves), _of_failures(rows), f"## Method\n\n{_wrapped(METHOD)}"]
    (folder / "ACCURACY.md").write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *lines))


def delay_curves(rows: Sequence[Row]) -> Mapping[str, Mapping[int, list[Row]]]:
    """For each detector and number of points to look ahead, the rows of all series: 0, 1, 2, 4 ... the most of any.

    A series that looks ahead less far has its most there.
    """
    by_detector: dict[str, dict[tuple[str, str], list[Row]]] = defaultdict(lambda: defaultdict(list))
    most = 0
    for row in rows:
        if row.regime == CURVE and row.error is None:
            by_detector[row.detector][row.source, row.series].append(row)
            most = max(most, row.lookahead_points or 0)
    return {
        detector: {step: [_last_up_to(step, found) for found in by_series.values()] for step in _steps(most)}
        for detector, by_series in by_detector.items()
    }


def draw(curves: Mapping[str, Mapping[int, Sequence[Row]]], path: Path) -> None:
    """Plot mean VUS-PR over the number of points to look ahead."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for detector, curve in sorted(curves.items()):
        known = {
            ahead: mean for ahead, rows in curve.items() if (mean := _mean(row.vus_pr for row in rows)) is not None
        }
        axes.plot(list(known), list(known.values()), marker="o", label=detector)
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("points that a verdict waits for")
    axes.set_ylabel("mean VUS-PR")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _steps(most: int) -> list[int]:
    return sorted({0, most} | {2**power for power in range(most.bit_length())})


def _last_up_to(lookahead: int, rows: Sequence[Row]) -> Row:
    return max(
        (row for row in rows if (row.lookahead_points or 0) <= lookahead), key=lambda row: row.lookahead_points or 0
    )


def _of_regime(regime: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    title, what = TITLES[regime]
    by_detector = _grouped(rows, lambda row: row.detector)
    names = sorted(by_detector, key=lambda name: -(_mean(row.vus_pr for row in by_detector[name]) or 0.0))
    lines = [[_named(name), *(show(by_detector[name]) for _, show in _COLUMNS)] for name in names]
    sources = sorted({row.source for row in rows})
    by_source = [[_named(name), *_of_sources(by_detector[name], sources)] for name in names]
    counts = Counter(source for source, _ in {(row.source, row.series) for row in rows})
    headings = ["VUS-PR", *(f"{source} ({counts[source]})" for source in sources)]
    overall = table(["detector", *(name for name, _ in _COLUMNS)], lines)
    return "\n\n".join([f"## {title}", what, overall, "By source:", table(headings, by_source)])


def _of_sources(rows: Sequence[Row], sources: Sequence[str]) -> Iterator[str]:
    for source in sources:
        yield _number(_mean(row.vus_pr for row in rows if row.source == source))


def _of_curves(curves: Mapping[str, Mapping[int, Sequence[Row]]]) -> str:
    if not curves:
        return ""
    steps = list(next(iter(curves.values())))
    measures: Mapping[str, Callable[[Row], float | None]] = {
        "VUS-PR": lambda row: row.vus_pr,
        "event F1": lambda row: row.event_f1,
    }
    lines = [
        [f"`{detector}`, {measure}", *(_number(_mean(map(of_row, curve[step]))) for step in steps)]
        for detector, curve in sorted(curves.items())
        for measure, of_row in measures.items()
    ]
    what = (
        "What it is worth to wait: means by the number of points after a point that its verdict waits for. A series "
        "whose verdicts settle sooner counts as settled from there on."
    )
    shown = table(["points to look ahead", *map(str, steps[:-1]), "settled"], lines)
    plot = "![Mean VUS-PR over the number of points that a verdict waits for](accuracy_delay.png)"
    return "\n\n".join(["## Delay against accuracy", _wrapped(what), shown, plot])


def _of_failures(rows: Sequence[Row]) -> str:
    failed = _grouped([row for row in rows if row.error is not None], lambda row: (row.detector, row.regime, row.error))
    if not failed:
        return ""
    lines = [
        [
            _named(detector),
            regime,
            str(len(of_it)),
            f"{of_it[0].source} {of_it[0].series}",
            str(error).replace("|", "\\|"),
        ]
        for (detector, regime, error), of_it in sorted(failed.items())
    ]
    return f"## Failed\n\n{table(['detector', 'regime', 'series', 'the first', 'error'], lines)}"


def _grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _named(detector: str) -> str:
    return f"`{detector}` ({PEERS[detector].install})" if detector in PEERS else f"`{detector}`"


def _mean(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return statistics.fmean(known) if known else None


def _ratio(rows: Sequence[Row], part: str, whole: str, times: float) -> float | None:
    counted = [row for row in rows if getattr(row, part) is not None]
    total = sum(getattr(row, whole) for row in counted)
    return times * sum(getattr(row, part) for row in counted) / total if total else None


def _number(number: float | None, digits: int = 3) -> str:
    return "-" if number is None else f"{number:,.{digits}f}"


def _wrapped(text: str) -> str:
    return "\n\n".join(textwrap.fill(paragraph, 120, break_on_hyphens=False) for paragraph in text.split("\n\n"))
