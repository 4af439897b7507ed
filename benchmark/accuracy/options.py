"""What the commands of the benchmark take alike."""

import argparse
import shlex
from collections.abc import Sequence

from app.detectors import DETECTORS
from benchmark.accuracy.regimes import load_detector


def detector_names(raw: str) -> list[str]:
    """Names of detectors, or their places, with commas between."""
    names = raw.split(",")
    try:
        for name in names:
            load_detector(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return names


def count(raw: str) -> int:
    """A whole number above 0."""
    if not raw.isdigit() or int(raw) < 1:
        raise argparse.ArgumentTypeError("must be a whole number, 1 or more")
    return int(raw)


def make_command(target: str, detectors: Sequence[str], arguments: Sequence[str]) -> str:
    """How a report can be made again, its detectors named where they are not those of the table."""
    chosen = [] if list(detectors) == list(DETECTORS) else ["--detectors", ",".join(detectors)]
    told = shlex.join([*chosen, *arguments])
    return f'make {target} ARGS="{told}"' if told else f"make {target}"
