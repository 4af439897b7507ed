"""What the commands of the benchmark take alike."""

import argparse

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
