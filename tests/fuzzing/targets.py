"""The table of targets."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hypothesis.strategies import SearchStrategy

from tests.fuzzing import files, inputs, requests, texts


class Target(NamedTuple):
    """What is given bytes, and which."""

    check: Callable[[bytes], object]
    """Raises when a promise is not kept; what it gives stands for what came of the input."""
    share: float
    """Of the inputs of a run."""
    seeds: Callable[[], Sequence[bytes]]
    tokens: Sequence[bytes] = ()
    structured: SearchStrategy[bytes] | None = None
    """Where changed bytes would seldom come to anything: some of the inputs are made by this."""
    covered: bool = False
    """Whether it is our code that parses: then half of the inputs are made by libFuzzer, if it is there."""


_HISTORY = b'{"timestamps": [1705000000, "2024-01-11T19:06:41Z", 1705000002.5], "values": [10.0, 10.5, -9.5e1]'
_OF_REQUESTS = (*inputs.HTTP, *inputs.QUERY, *inputs.JSON, *inputs.TEXTS)

TARGETS: Mapping[str, Target] = {
    "timestamps": Target(
        texts.check_timestamp,
        0.16,
        lambda: (b"2024-01-11T19:06:40.123456Z", b"2024-01-11t19:06:40+05:30", b"1705000000", b"1705000000.25", b"1e9"),
        [text.strip(b'"') for text in inputs.TEXTS],
        covered=True,
    ),
    "names": Target(
        texts.check_names,
        0.15,
        lambda: (b"sensor_01", b"latest", b"v3", b"@prod", b" a.b-c ", b"0", b"3f2a-key"),
        (b"..", b"@", b"v", b"latest", b" ", b"\t", b"\xc2\xa0", b"\xd9\xa1"),
        covered=True,
    ),
    "headers": Target(
        texts.check_headers,
        0.10,
        lambda: (b'"1-abc", W/"2"', b"*", b'W/"1-abc"', b"application/json; charset=utf-8", b"text/html, */*;q=0.8"),
        (b'"1-abc"', b"W/", b",", b";", b"*", b"application/json", b"compression=lz4"),
        covered=True,
    ),
    "queries": Target(
        texts.check_query,
        0.10,
        lambda: (
            b"version=3&false_alarm_rate=0.001",
            b"max_false_alarms_per_week=1e1&lookahead_points=4",
            b"params=%7B%22k%22%3A3%7D",
        ),
        (*inputs.QUERY, *inputs.JSON[:12]),
        covered=True,
    ),
    "fits": Target(
        texts.check_fit,
        0.12,
        lambda: (
            _HISTORY + b"}",
            _HISTORY + b', "detector": "mean_std", "params": {"k": 3, "direction": "above"}}',
            _HISTORY + b', "detector": "robust_z", "params": {"max_false_alarms_per_week": 1}}',
        ),
        (*inputs.JSON, *inputs.TEXTS),
        covered=True,
    ),
    "predictions": Target(
        texts.check_prediction,
        0.12,
        lambda: (
            b'{"timestamp": 1705000000, "value": 10.5}',
            _HISTORY + b', "context": {"timestamps": [1, 2], "values": [1, 2]}}',
        ),
        (*inputs.JSON, *inputs.TEXTS),
        covered=True,
    ),
    "aliases": Target(
        texts.check_alias,
        0.05,
        lambda: (b'{"version": 3}', b'{"version": "latest"}', b'{"version": "@prod"}', b'{"version": 3.0}'),
        (*inputs.JSON, *inputs.TEXTS),
        covered=True,
    ),
    "lines": Target(
        texts.check_lines,
        0.08,
        lambda: (b'{"series_id": "a", ' + _HISTORY[1:] + b"}\n\n" + b'{"series_id": "b", "timestamp": 1, "value": 2}',),
        (*inputs.JSON, *inputs.TEXTS, b"\n", b"\r\n", b"\n\n"),
        covered=True,
    ),
    "arrow-points": Target(
        files.check_arrow_points,
        0.02,
        files.stream_seeds,
        structured=files.tables().map(files.as_stream),
        covered=True,
    ),
    "arrow-rows": Target(
        files.check_arrow_rows,
        0.02,
        files.stream_seeds,
        structured=files.tables().map(files.as_stream),
        covered=True,
    ),
    "parquet": Target(files.check_parquet, 0.015, files.parquet_seeds, structured=files.tables().map(files.as_parquet)),
    "files": Target(
        files.check_file, 0.015, files.file_seeds, structured=files.texts() | files.tables().map(files.as_file)
    ),
    "models": Target(files.check_model, 0.015, files.models, inputs.JSON, covered=True),
    "training-data": Target(files.check_training_data, 0.015, files.training_files),
    "requests": Target(requests.check_request, 0.02, requests.request_seeds, _OF_REQUESTS),
    "strangers": Target(requests.check_stranger, 0.02, requests.request_seeds, (*_OF_REQUESTS, *inputs.KEYS)),
}
