"""A fitted detector as bytes and back: a safetensors file, which is data and never code.

The tensors are the detector's state. The header holds one entry, `tidemark`: JSON with the format's number,
the detector's name and its parameters. The same detector always gives the same bytes.
"""

import json
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from app.detectors import DETECTORS, find_detector
from app.detectors.base import Detector, DetectorParams

FORMAT = 1
_HEADER_LENGTH_BYTES = 8


class _Head(NamedTuple):
    """The beginning of a file, and the names of the tensors in the order in which they follow."""

    head: bytes
    order: list[str]


def encode(detector: Detector) -> bytes:
    """The bytes of a fitted detector."""
    state = {name: np.asarray(array, order="C") for name, array in detector.state.items()}
    head, order = _head(detector.name, detector.params, tuple((name, array.shape) for name, array in state.items()))
    return head + b"".join([state[name].tobytes() for name in order])


@lru_cache(maxsize=1000)
def _head(detector: str, params: DetectorParams, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> _Head:
    """What comes before the numbers, as safetensors writes it: the same for all models of one kind and shape."""
    header = {"format": FORMAT, "detector": detector, "params": params.model_dump()}
    metadata = {"tidemark": json.dumps(header, sort_keys=True, separators=(",", ":"))}
    whole = save({name: np.zeros(shape) for name, shape in shapes}, metadata)
    head = whole[: _HEADER_LENGTH_BYTES + int.from_bytes(whole[:_HEADER_LENGTH_BYTES], "little")]
    entries = json.loads(head[_HEADER_LENGTH_BYTES:])
    return _Head(head, sorted((name for name, _ in shapes), key=lambda name: entries[name]["data_offsets"]))


def decode(data: bytes) -> Detector:
    """The fitted detector that `encode` gave these bytes for.

    Raises ValueError when they are anything else, or of a later format.
    """
    try:
        state = load(data)
        end = _HEADER_LENGTH_BYTES + int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
        detector, params = _parse_head(data[_HEADER_LENGTH_BYTES:end])
        return detector.load(state, params)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"not a model file: {error!r}") from error


@lru_cache(maxsize=1000)
def _parse_head(head: bytes) -> tuple[type[Detector], DetectorParams]:
    """The detector and its parameters: the same objects for all models that have the same, which saves memory."""
    header = json.loads(json.loads(head)["__metadata__"]["tidemark"])
    if header["format"] != FORMAT:
        raise ValueError(f"a model file of format {header['format']}; this release reads format {FORMAT}")
    if header["detector"] not in DETECTORS:
        raise ValueError(f"a model of the detector {header['detector']!r}, which this release does not have")
    detector = find_detector(header["detector"])
    return detector, detector.Params.model_validate(header["params"])
