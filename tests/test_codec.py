"""Models as bytes: data that is checked, never code that is run."""

import ast
import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import app
from app.detectors import codec
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.series import Series

MODEL = MeanStd.fit(Series(np.arange(4.0), np.array([10.0, 10.5, 9.5, 10.0])), MeanStdParams(k=2.5, direction="above"))
DATA = codec.encode(MODEL)
HEADER = {"format": codec.FORMAT, "detector": "mean_std", "params": {"k": 3.0, "direction": "both"}}
STATE = {"mean": np.array(1.0), "std": np.array(2.0)}
SERIALIZERS_THAT_RUN_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def forged(header: object = HEADER, state: Mapping[str, np.ndarray] = STATE) -> bytes:
    return save(dict(state), {"tidemark": json.dumps(header)})


def test_a_model_round_trips_byte_for_byte() -> None:
    decoded = codec.decode(DATA)
    assert decoded.params == MODEL.params
    assert codec.encode(decoded) == DATA


def test_a_forged_file_that_is_right_is_read() -> None:
    # Else the refusals below would prove nothing.
    assert codec.decode(forged()).params == MeanStdParams()


def test_the_file_opens_with_any_safetensors_reader_and_says_what_it_is() -> None:
    length = int.from_bytes(DATA[:8], "little")
    header = json.loads(json.loads(DATA[8 : 8 + length])["__metadata__"]["tidemark"])
    assert header == {
        "format": codec.FORMAT,
        "detector": "mean_std",
        "params": {
            "k": 2.5,
            "direction": "above",
            "false_alarm_rate": None,
            "max_false_alarms_per_week": None,
            "min_dev_from_expected": 0.0,
            "min_rel_dev_from_expected": 0.0,
            "seed": 0,
        },
    }


def test_a_file_cut_short_is_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(ValueError, match="not a model file"):
            codec.decode(DATA[:length])


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 8, b"\0" * 1000, b"\xff" * 1000, b"{}", DATA + b"\0", b"\0" + DATA, pickle.dumps(STATE), save(STATE)],
    ids=["empty", "zeros", "more zeros", "ones", "json", "longer", "shifted", "pickle", "foreign safetensors"],
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        codec.decode(data)


@pytest.mark.parametrize("number", [0, codec.FORMAT + 1, "1", None])
def test_a_file_of_an_unknown_format_is_refused_and_its_format_named(number: object) -> None:
    with pytest.raises(ValueError, match=f"format {number}"):
        codec.decode(forged(HEADER | {"format": number}))


@pytest.mark.parametrize(
    "header",
    [
        {},
        [],
        None,
        7,
        "text",
        HEADER | {"detector": "no_such"},
        HEADER | {"detector": None},
        HEADER | {"detector": []},
        HEADER | {"params": {"k": -1.0, "direction": "both"}},
        HEADER | {"params": {"k": 3.0, "direction": "both", "more": 1}},
        HEADER | {"params": []},
        {"format": codec.FORMAT, "detector": "mean_std"},
        {"format": codec.FORMAT, "params": {}},
    ],
    ids=repr,
)
def test_a_header_that_makes_no_sense_is_refused(header: object) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        codec.decode(forged(header))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"mean": np.array(1.0)},
        {"std": np.array(1.0)},
        {"mean": np.array([1.0, 2.0]), "std": np.array(1.0)},
        {"mean": np.array([]), "std": np.array(1.0)},
    ],
    ids=["nothing", "no std", "no mean", "two means", "empty mean"],
)
def test_a_state_of_another_shape_is_refused(state: Mapping[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        codec.decode(forged(state=state))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, len(DATA) - 1), st.integers(0, 255))
def test_a_changed_byte_raises_nothing_but_value_error(position: int, byte: int) -> None:
    # Whether the byte is noticed is the business of the checksum that the store verifies first.
    damaged = bytearray(DATA)
    damaged[position] = byte
    try:
        codec.decode(bytes(damaged))
    except ValueError:
        assert damaged != DATA


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        codec.decode(data)


@pytest.mark.parametrize("path", sorted(Path(app.__file__).parent.rglob("*.py")), ids=lambda path: path.name)
def test_nothing_is_ever_unpickled(path: Path) -> None:
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        names: list[str | None] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        assert not {(name or "").split(".")[0] for name in names} & SERIALIZERS_THAT_RUN_CODE
    assert "allow_pickle" not in source
