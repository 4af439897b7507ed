"""Whether alarms keep to their budget: measured rates of false alarms against the asked ones, on normal series.

`make bench-false-alarms` writes benchmark/FALSE_ALARMS.md, and every figure to benchmark/false_alarms.json.
"""

import argparse
import json
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from app.detectors import DETECTORS
from app.series import Series
from app.simulation import DAY_POINTS, NORMAL_SERIES
from benchmark.accuracy.options import count, detector_names, make_command
from benchmark.accuracy.processes import in_processes, with_progress
from benchmark.accuracy.provenance import ROOT, provenance, told
from benchmark.accuracy.regimes import ARRIVAL, SETTLED, load_detector
from benchmark.accuracy.report import table
from benchmark.measures import say

RATES = (0.01, 0.001)
LEFT_OUT, FITTED, JUDGED = 3 * DAY_POINTS, 10_000, 20_000
SEEDS = 5
SLOW, SEEDS_OF_SLOW = ("subsequence_knn", "auto", "ensemble"), 2
LEAST, MOST = 0.5, 2.0
OF_ONE_LEVEL, OF_NO_LEVEL = ("mean_std", "robust_z"), ("trending", "counter")

METHOD = f"""Each detector is fitted to {FITTED:,} points with a false alarm rate, and judges the next {JUDGED:,}, in \
which nothing is wrong either. The figure is the share that it flags over the share that it was asked to flag, of all \
series of a kind together, {SEEDS} by default and {SEEDS_OF_SLOW} at most for the slowest \
detectors: 1 is right, **bold** is below {LEAST:g} or above {MOST:g}. The column "off" counts these; \
"single" is the share of single series that are within these limits: a window of 32 points comes 300 times in a \
history, which is little to know one in a thousand by. Where most values come more than once, rates can only come in \
steps, and the right step may be far below what is asked: <= marks a figure that is low for this reason. Not for: a \
detector that knows one level, on series that leave it; it flags what is on another. Histories begin on a Thursday, so \
that seven days show both ends of a weekend. A detector that makes use of the points after a point has a second line, \
settled."""


class Task(NamedTuple):
    """A detector, a kind of normal series, and how many of these."""

    detector: str
    kind: str
    seeds: int


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of the points of normal series were flagged."""

    detector: str
    kind: str
    regime: str
    asked: float
    measured: tuple[float, ...] = ()
    """Of each series."""
    is_discrete: bool = False
    error: str | None = None

    @property
    def shown(self) -> str:
        """The ratio of the measured rate to the asked one, marked where it is off."""
        if self.error is not None:
            return "failed"
        ratio = float(np.mean(self.measured)) / self.asked
        if self._is_right(ratio):
            return f"{ratio:.2f}" if ratio >= LEAST else f"<= {ratio:.2f}"
        return f"not for: {ratio:.2f}" if self.is_no_task else f"**{ratio:.2f}**"

    @property
    def is_no_task(self) -> bool:
        """Whether this is not what the detector is for."""
        return self.detector in OF_ONE_LEVEL and self.kind in OF_NO_LEVEL

    @property
    def right(self) -> list[bool]:
        """Of which series the rate is right."""
        return [self._is_right(measured / self.asked) for measured in self.measured]

    def _is_right(self, ratio: float) -> bool:
        return ratio <= MOST and (ratio >= LEAST or self.is_discrete)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the table."""
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    made = provenance(_command(options))
    tasks = [
        Task(detector, kind, min(options.seeds, SEEDS_OF_SLOW) if detector in SLOW else options.seeds)
        for kind in options.kinds
        for detector in options.detectors
    ]
    results = in_processes(measure, _failures, tasks, options.workers)
    rates: list[Rate] = []
    for found in with_progress(results, len(tasks), lambda rates: rates[0].detector, _has_failed):
        rates += found
    lines = ",\n".join(json.dumps(asdict(rate)) for rate in rates)
    (options.output / "false_alarms.json").write_text(f'{{"made": {json.dumps(made)},\n"rates": [\n{lines}\n]}}\n')
    report = options.output / "FALSE_ALARMS.md"
    report.write_text(_report(rates, options.kinds, told(made)), encoding="utf-8")
    say(f"Written to {report}.")


def measure(task: Task) -> list[Rate]:
    """The rates of one detector on one kind of series."""
    warnings.simplefilter("ignore")
    try:
        return _measure(task)
    except Exception as error:  # noqa: BLE001 -- whatever fails is a result
        return _failures(task, error)


def _measure(task: Task) -> list[Rate]:
    detector = load_detector(task.detector)
    flagged: dict[tuple[str, float], list[float]] = {}
    is_discrete = False
    for seed in range(task.seeds):
        series = NORMAL_SERIES[task.kind](LEFT_OUT + FITTED + JUDGED, seed).last(FITTED + JUDGED)
        history, later = series.first(FITTED), series.last(JUDGED)
        fitted = detector.fit(history, detector.Params.model_validate({"false_alarm_rate": RATES[0]}))
        is_discrete = is_discrete or _is_discrete(history)
        most = int(fitted.state.get("lookaheads", np.zeros(1)).max())
        for regime, lookahead in {ARRIVAL: 0, SETTLED: most}.items():
            if regime == SETTLED and not most:
                continue
            for asked in RATES:
                verdicts = fitted.score(later, false_alarm_rate=asked, lookahead_points=lookahead)
                flagged.setdefault((regime, asked), []).append(float(verdicts.is_anomaly.mean()))
    return [
        Rate(task.detector, task.kind, regime, asked, tuple(shares), is_discrete)
        for (regime, asked), shares in flagged.items()
    ]


def _failures(task: Task, error: Exception) -> list[Rate]:
    said = f"{type(error).__name__}: {error}"
    return [Rate(task.detector, task.kind, ARRIVAL, asked, error=said) for asked in RATES]


def _has_failed(rates: Sequence[Rate]) -> bool:
    return rates[0].error is not None


def _is_discrete(series: Series) -> bool:
    """Whether most values come more than once."""
    times = np.unique(series.values, return_counts=True)[1]
    return bool(times[times > 1].sum() > len(series) / 2)


def _report(rates: Sequence[Rate], kinds: Sequence[str], made: str) -> str:
    parts = ["# False alarms", made, textwrap.fill(METHOD, 120, break_on_hyphens=False)]
    for asked in RATES:
        by_line: dict[tuple[str, str], dict[str, Rate]] = {}
        for rate in rates:
            if rate.asked == asked:
                by_line.setdefault((rate.detector, rate.regime), {})[rate.kind] = rate
        lines = [_line(name, regime, of_kinds, kinds) for (name, regime), of_kinds in by_line.items()]
        parts.append(f"## {asked:.1%} asked\n\n{table(['detector', *kinds, 'off', 'single'], lines)}")
    if failed := sorted({f"- `{rate.detector}` on {rate.kind}: {rate.error}" for rate in rates if rate.error}):
        parts.append("## Failed\n\n" + "\n".join(failed))
    return "\n\n".join(parts) + "\n"


def _line(name: str, regime: str, of_kinds: Mapping[str, Rate], kinds: Sequence[str]) -> list[str]:
    shown = [of_kinds[kind].shown if kind in of_kinds else "-" for kind in kinds]
    off = sum(cell.startswith("**") for cell in shown)
    right = [is_right for rate in of_kinds.values() if not rate.is_no_task for is_right in rate.right]
    single = f"{np.mean(right):.0%}" if right else "-"
    return [f"`{name}`, settled" if regime == SETTLED else f"`{name}`", *shown, str(off), single]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmark.accuracy.false_alarms", description=__doc__)
    parser.add_argument("--detectors", type=detector_names, default=list(DETECTORS), help="some, with commas between")
    parser.add_argument("--kinds", type=_kinds, default=list(NORMAL_SERIES), help=f"some of {','.join(NORMAL_SERIES)}")
    parser.add_argument(
        "--seeds",
        type=count,
        default=SEEDS,
        metavar="N",
        help=f"series of each kind; {SEEDS} by default, of the slowest detectors {SEEDS_OF_SLOW} at most",
    )
    parser.add_argument("--workers", type=count, default=2, metavar="N", help="processes; 2 by default")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmark", help="folder to write to")
    return parser


def _command(options: argparse.Namespace) -> str:
    arguments = []
    if options.kinds != list(NORMAL_SERIES):
        arguments += ["--kinds", ",".join(options.kinds)]
    if options.seeds != SEEDS:
        arguments += ["--seeds", str(options.seeds)]
    return make_command("bench-false-alarms", options.detectors, arguments)


def _kinds(raw: str) -> list[str]:
    if unknown := set(raw.split(",")) - set(NORMAL_SERIES):
        raise argparse.ArgumentTypeError(f"no such kind: {', '.join(sorted(unknown))}")
    return raw.split(",")


if __name__ == "__main__":
    main()
