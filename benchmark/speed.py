"""How fast the service is, on PostgreSQL and Redis, beside what FastAPI and uvicorn cost. `make bench` runs it.

Everything runs on this machine, the load included, so the ratios count and not the absolute figures. What is
compared is measured in turns, and each figure is the median of its rounds. `python -m benchmark.speed` measures
everything and writes benchmark/RESULTS.md; with names of sections it measures these and prints them only.
"""

import argparse
import os
import platform
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import fastapi
import uvicorn

from app import __version__
from benchmark.caches import measure_cold, measure_variety
from benchmark.detectors import measure_detections, measure_detectors
from benchmark.fits import measure_bulk_fits, measure_large_fits, measure_small_fits, measure_start_up
from benchmark.freshness import measure_freshness
from benchmark.growth import COLUMNS as GROWTH_COLUMNS
from benchmark.growth import measure_growth
from benchmark.imports import measure_imports
from benchmark.keys import measure_keys
from benchmark.measures import ROUNDS, SECONDS, say
from benchmark.predictions import measure_many_points, measure_predictions
from benchmark.soak import soak_section
from benchmark.stages import measure_stages
from benchmark.streaming import measure_streaming
from benchmark.testbed import Testbed

RESULTS = Path(__file__).parent / "RESULTS.md"


Measure = Callable[[Testbed], Iterator[Sequence[str]]]


class Section(NamedTuple):
    """Measurements that belong together."""

    title: str
    measures: Mapping[str, Measure]
    note: str = ""
    columns: Sequence[str] = ("what", "measured", "to reach")


SECTIONS = (
    Section(
        "Predictions",
        {"start": measure_start_up, "predict": measure_predictions, "points": measure_many_points},
        "The references are in `benchmark/reference.py`: the no-op is a FastAPI route that validates the same body, "
        "answers the same model and does nothing else; the wire is an ASGI function that reads the body and answers "
        "the same bytes. Both run on the same uvicorn.",
    ),
    Section(
        "Keys",
        {"keys": measure_keys},
        "A key is found by its public beginning and compared by its SHA-256 when it is first used, and from then on "
        "by the header that it was sent in, until any key is made or revoked. Two services, with keys and without, "
        "are asked at the same moment by half of the connections each, so that what slows the machine slows both. "
        "Background threads are counted too, such as the one that asks four times a second whether there is a new "
        "key.",
    ),
    Section(
        "Fits",
        {"fit": measure_small_fits, "large": measure_large_fits, "bulk": measure_bulk_fits, "import": measure_imports},
        "A fit writes its artifacts and its rows durably before it answers. `app fit` is timed from its start to its "
        "end, Python's own start included.",
    ),
    Section(
        "Detectors",
        {"detectors": measure_detectors, "detect": measure_detections},
        "Without HTTP but for `POST /detect`: `Detector.fit` and `Detector.score_one`, of a simulated sensor with a "
        "daily swing and of noise without one. Code was compiled before. A point is a normal one; an anomaly takes "
        "longer, as its kind is told too.",
    ),
    Section(
        "Growth",
        {"growth": measure_growth},
        "`python -m app fit` of a Parquet file of series of 100 points with one worker, on an empty database; the time "
        "includes Python's own start.\n\n![Time, storage and memory over the number of series](growth.png)",
        GROWTH_COLUMNS,
    ),
    Section(
        "Many series",
        {
            "variety": measure_variety,
            "cold": measure_cold,
            "stream": measure_streaming,
            "freshness": measure_freshness,
        },
        "A cold prediction finds nothing of its series in the service's memory; files and tables may be in that of the "
        "operating system.",
    ),
    Section(
        "Where the time goes",
        {"stages": measure_stages},
        "Each stage is a function of the service, called by itself in a loop; HTTP is what a request takes of the wire "
        "reference under load. A fit's durable steps wait for the disk and for PostgreSQL, and other requests go on "
        "meanwhile.",
        ("stage", "microseconds", "share"),
    ),
)


def main() -> None:
    """Measure, and write the results when everything was measured."""
    known = [name for section in SECTIONS for name in section.measures]
    parser = argparse.ArgumentParser(description="Measure the speed of the service.")
    parser.add_argument("sections", nargs="*", metavar="section", help=f"some of: {', '.join(known)}; default: all")
    chosen = parser.parse_args().sections
    if unknown := set(chosen) - set(known):
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder,
        closing(Testbed(Path(folder), Path(folder) if chosen else RESULTS.parent)) as bed,
    ):
        tables = "\n".join(_measure(bed, chosen or known))
    if chosen:
        print(f"\n{tables}")
        return
    RESULTS.write_text(_report(tables) + soak_section(RESULTS.read_text()))
    print(f"\n{tables}\nWritten to {RESULTS}.")


def _measure(bed: Testbed, names: Sequence[str]) -> Iterator[str]:
    for section in SECTIONS:
        chosen = {name: measure for name, measure in section.measures.items() if name in names}
        if chosen:
            yield _table(section, [row for name, measure in chosen.items() for row in _timed(name, measure, bed)])


def _timed(name: str, measure: Measure, bed: Testbed) -> list[Sequence[str]]:
    started = time.perf_counter()
    rows = []
    for row in measure(bed):
        say(f"    {' | '.join(row)}")
        rows.append(row)
    say(f"-- {name} took {time.perf_counter() - started:.0f} s")
    return rows


def _table(section: Section, rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (section.columns, ["---"] * len(section.columns), *rows)]
    paragraphs = section.note.split("\n\n")
    note = "\n\n".join(textwrap.fill(paragraph, 120, break_on_hyphens=False) for paragraph in paragraphs)
    return "\n".join([f"## {section.title}", "", *lines, "", note, ""])


def _report(tables: str) -> str:
    return f"""# Results

Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: Tidemark {__version__}, Python {platform.python_version()}, \
FastAPI {fastapi.__version__}, uvicorn {uvicorn.__version__}, {os.cpu_count()} cores, {platform.system()}.
One worker process, PostgreSQL, Redis; wrk on the same machine, {ROUNDS} rounds of {SECONDS:g} s, medians.

{tables.rstrip()}
"""


if __name__ == "__main__":
    main()
