"""A fitted detector as bytes and back: a safetensors file, which is data and never code.

The tensors are the detector's state. The header holds one entry, `tidemark`: JSON with the format's number,
the detector's name and its parameters. The same detector always gives the same bytes.
"""

import json
from functools import lru_cache

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from app.detectors import DETECTORS, find_detector
from app.detectors.base import Detector, DetectorParams

FORMAT = 1
_HEADER_LENGTH_BYTES = 8


@lru_cache(maxsize=1000)
def _parse_params(detector: str, params: str) -> DetectorParams:
    """Parameters, shared by the many models that have the same ones: half of a small model's memory."""
    return find_detector(detector).Params.model_validate_json(params)


def encode(detector: Detector) -> bytes:
    """The bytes of a fitted detector."""
    header = {"format": FORMAT, "detector": detector.name, "params": detector.params.model_dump()}
    tensors = {name: np.asarray(array, order="C") for name, array in detector.state.items()}
    return save(tensors, {"tidemark": json.dumps(header, sort_keys=True, separators=(",", ":"))})


def decode(data: bytes) -> Detector:
    """The fitted detector that `encode` gave these bytes for.

    Raises ValueError when they are anything else, or of a later format.
    """
    try:
        state = load(data)
        end = _HEADER_LENGTH_BYTES + int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
        header = json.loads(json.loads(data[_HEADER_LENGTH_BYTES:end])["__metadata__"]["tidemark"])
        if header["format"] != FORMAT:
            raise ValueError(f"a model file of format {header['format']}; this release reads format {FORMAT}")
        if header["detector"] not in DETECTORS:
            raise ValueError(f"a model of the detector {header['detector']!r}, which this release does not have")
        params = json.dumps(header["params"], sort_keys=True)
        return find_detector(header["detector"]).load(state, _parse_params(header["detector"], params))
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"not a model file: {error!r}") from error
