"""A fitted detector as bytes and back: a safetensors file, which is data and never code.

The tensors are the detector's state. The header holds one entry, `tidemark`: JSON with the format's number,
the detector's name and its parameters. The same detector always gives the same bytes.
"""

import json

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from app.detectors import find_detector
from app.detectors.base import Detector

FORMAT = 1
_HEADER_LENGTH_BYTES = 8


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
        detector = find_detector(header["detector"])
        return detector.load(state, detector.Params.model_validate(header["params"]))
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"not a model file: {error!r}") from error
