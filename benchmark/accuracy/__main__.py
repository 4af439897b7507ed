"""How well the detectors find labelled anomalies. `make bench-accuracy DATA=folder` runs it.

Every detector is run over every series of a folder, in each regime, and the table of means is written to
benchmark/ACCURACY.md, what was measured of each series to benchmark/accuracy.json. See `datasets.py` for the layouts.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.detectors import DETECTORS
from benchmark.accuracy.datasets import LabelledSeries, load_folder
from benchmark.accuracy.options import count, detector_names, make_command
from benchmark.accuracy.peers import PEERS
from benchmark.accuracy.processes import in_processes, with_progress
from benchmark.accuracy.provenance import ROOT, code_version, provenance, told
from benchmark.accuracy.regimes import CURVE, REGIMES
from benchmark.accuracy.report import write_report
from benchmark.accuracy.runs import Row, Task, failures, measure
from benchmark.measures import say

CURVED = ("auto", "subsequence_knn")
"""Detectors of which the curve of delay against accuracy is measured."""

_SAVE_EVERY_S = 30.0
_DIGITS = 6


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the report and the figures of each series."""
    options = _parser().parse_args(arguments)
    every = load_folder(options.data)
    series = every[:: options.every]
    options.output.mkdir(parents=True, exist_ok=True)
    made = provenance(_command(options)) | {"series": f"{len(series)} of {len(every)}"}
    figures = options.output / "accuracy.json"
    rows = _done(figures, made["code"]) if options.resume else []
    tasks = _tasks(series, _contenders(options), rows)
    saved_s = time.monotonic()
    try:
        for found in _run(tasks, options.workers):
            rows += found
            if time.monotonic() - saved_s > _SAVE_EVERY_S:
                saved_s = time.monotonic()
                _save(figures, made, rows)
    finally:  # an interrupted run can be resumed, and read
        _save(figures, made, rows)
        write_report(rows, _header(made, rows, options), options.output)
    if code_version() != made["code"]:
        say("The code has changed while it was measured: the results are of no one version.")
    say(f"Written to {options.output / 'ACCURACY.md'} and {figures}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmark.accuracy", description="Measure accuracy.")
    parser.add_argument("data", type=_folder, help="folder of labelled series")
    parser.add_argument(
        "--detectors", type=detector_names, default=list(DETECTORS), help="some, with commas between, or module:Class"
    )
    parser.add_argument("--regimes", type=_regimes, default=list(REGIMES), help=f"some of {','.join(REGIMES)}")
    parser.add_argument("--peers", action="store_true", help="run the detectors of other libraries too")
    parser.add_argument("--every", type=count, default=1, metavar="N", help="each N-th series, for a quick look")
    parser.add_argument("--workers", type=count, default=2, metavar="N", help="processes; 2 by default")
    parser.add_argument("--resume", action="store_true", help="keep what this code has measured before")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmark", help="folder to write to")
    return parser


def _folder(raw: str) -> Path:
    if not raw or not Path(raw).is_dir():
        raise argparse.ArgumentTypeError(f"{raw!r} is no folder: make bench-accuracy DATA=folder")
    return Path(raw)


def _regimes(raw: str) -> list[str]:
    if unknown := set(raw.split(",")) - set(REGIMES):
        raise argparse.ArgumentTypeError(f"no such regime: {', '.join(sorted(unknown))}")
    return [regime for regime in REGIMES if regime in raw.split(",")]


def _command(options: argparse.Namespace) -> str:
    """How to run it again; of the folder its name alone, as it lies elsewhere on another machine."""
    arguments = ["--peers"] * options.peers
    if options.regimes != list(REGIMES):
        arguments += ["--regimes", ",".join(options.regimes)]
    if options.every > 1:
        arguments += ["--every", str(options.every)]
    return make_command(f"bench-accuracy DATA={options.data.resolve().name}", options.detectors, arguments)


def _contenders(options: argparse.Namespace) -> Mapping[str, Sequence[str]]:
    """What is to be run, and in which regimes."""
    contenders = {
        name: [regime for regime in options.regimes if regime != CURVE or name in CURVED] for name in options.detectors
    }
    if options.peers:
        for name, peer in PEERS.items():
            if peer.is_installed:
                contenders[name] = [regime for regime in options.regimes if regime in peer.run]
    return contenders


def _tasks(
    series: Sequence[LabelledSeries], contenders: Mapping[str, Sequence[str]], done: Sequence[Row]
) -> list[Task]:
    """All that is to be measured, series by series, so that what is measured first is of all detectors."""
    measured = defaultdict(set)
    for row in done:
        measured[row.source, row.series, row.detector].add(row.regime)
    tasks = []
    for labelled in series:
        for name, regimes in contenders.items():
            has = measured[labelled.source, labelled.name, name]
            if left := tuple(regime for regime in regimes if regime not in has):
                tasks.append(Task(labelled, name, left))
    return tasks


def _run(tasks: Sequence[Task], workers: int) -> Iterator[list[Row]]:
    return with_progress(
        in_processes(measure, failures, tasks, workers),
        len(tasks),
        lambda rows: f"{rows[0].detector} on {rows[0].source} {rows[0].series}",
        lambda rows: any(row.error is not None for row in rows),
    )


def _save(path: Path, made: Mapping[str, str], rows: Sequence[Row]) -> None:
    """Keep all rows, one a line; a reader finds the file whole at any time."""
    lines = ",\n".join(json.dumps(_figures(row)) for row in rows)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(f'{{"made": {json.dumps(made, indent=2)},\n"rows": [\n{lines}\n]}}\n', encoding="utf-8")
    unfinished.replace(path)


def _figures(row: Row) -> dict[str, Any]:
    known = {name: figure for name, figure in asdict(row).items() if figure is not None}
    return {
        name: float(f"{figure:.{_DIGITS}g}") if isinstance(figure, float) else figure for name, figure in known.items()
    }


def _done(path: Path, code: str) -> list[Row]:
    """What the same code has measured; what failed is tried again."""
    if not path.is_file():
        return []
    kept = json.loads(path.read_bytes())
    if kept["made"]["code"] != code:
        say("Nothing to resume: the code has changed.")
        return []
    return [Row(**row) for row in kept["rows"] if "error" not in row]


def _header(made: dict[str, str], rows: Sequence[Row], options: argparse.Namespace) -> str:
    series = len({(row.source, row.series) for row in rows})
    parts = ["# Accuracy", told(made), f"{made['series']} series of the folder were asked for, {series} are measured."]
    if options.peers:
        missing = [
            f"- {name}: not installed: `pip install {peer.install}`"
            for name, peer in PEERS.items()
            if not peer.is_installed
        ]
        what = "Detectors of other libraries have their package in brackets."
        parts += [f"{what} `microsoft` runs in a process whose memory is not counted.", "\n".join(missing)]
    return "\n\n".join(filter(None, parts))


if __name__ == "__main__":
    main()
