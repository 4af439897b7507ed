"""What `make fuzz` found, and what was hard to reach, again; and the fuzzer itself, on a parser that has faults."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tests.fuzzing import inputs
from tests.fuzzing.mutations import Drive, Hung, Run
from tests.fuzzing.targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"


def corpus() -> Iterator[pytest.ParameterSet]:
    for path in sorted(CORPUS.glob("*/*")):
        yield pytest.param(path, id=f"{path.parent.name}/{path.name}")


@pytest.mark.parametrize("path", list(corpus()))
def test_what_was_found_once_is_not_found_again(path: Path) -> None:
    TARGETS[path.parent.name].check(path.read_bytes())


def test_every_target_has_a_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys()


def parse_with_a_fault(data: bytes) -> object:
    if b"9999" in data:
        raise KeyError(data)
    return data.count(b"{")


def parse_for_ever(data: bytes) -> object:
    while data.endswith(b"}}"):
        pass
    return data.count(b"{")


def drive(check: Callable[[bytes], object], findings: Path) -> list[dict[str, Any]]:
    told = io.StringIO()
    with redirect_stdout(told):
        target = Target(check, 1.0, lambda: (b'{"a": 1}',), inputs.JSON)
        Drive("faulty", target, Run(inputs=3_000, seconds=60, seed=0, findings=findings)).go()
    return [json.loads(line) for line in told.getvalue().splitlines()]


def test_a_fault_is_found_once_told_and_kept(tmp_path: Path) -> None:
    told = drive(parse_with_a_fault, tmp_path)
    assert told[-1]["inputs"] == 3_000
    assert ["KeyError" in line["reason"] for line in told if "finding" in line] == [True]
    (kept,) = tmp_path.glob("*.bin")
    assert b"9999" in kept.read_bytes()
    assert "parse_with_a_fault" in kept.with_suffix(".txt").read_text()


def test_what_takes_for_ever_is_a_fault(tmp_path: Path) -> None:
    told = drive(parse_for_ever, tmp_path)
    assert told[-1]["inputs"] < 3_000
    assert [Hung.__name__ in line["reason"] for line in told if "finding" in line] == [True]
    assert next(tmp_path.glob("*.bin")).read_bytes().endswith(b"}}")


def test_a_run_says_what_it_did_and_ends_with_status_0_when_nothing_was_found(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzzing", "names", "--inputs", "400"]
    run = subprocess.run([*command, f"--findings={tmp_path}"], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert "| names |" in run.stdout
    assert "| all |  | 400 |" in run.stdout
    assert not list(tmp_path.iterdir())
