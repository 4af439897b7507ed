"""`python -m tests.fuzzing`: every target, each in a process of its own, and a table of what came of it."""

import argparse
import importlib.util
import json
import re
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.fuzzing.mutations import Run, save
from tests.fuzzing.targets import TARGETS

_SILENCE_S = 600.0
"""Longer than numba takes to compile everything on a busy machine: whoever says nothing for so long hangs in C."""
_COVERED = 0.5
"""Of the inputs of a target that libFuzzer can look into."""
_EVERY_S = 10.0
_FINDINGS = Path("fuzz-findings")


class Result(NamedTuple):
    """What came of a target."""

    target: str
    driver: str
    inputs: int
    seconds: float
    findings: list[str]


def main() -> None:
    """Give inputs to all targets, or to those that are named; exit status 1 when a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description="Bad input by the million.")
    parser.add_argument("targets", nargs="*", metavar="target", help=f"some of: {', '.join(TARGETS)}; default: all")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--seconds", type=float, default=3_600.0, help="for each target and driver at most")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same inputs, but for libFuzzer's")
    parser.add_argument("--findings", type=Path, default=_FINDINGS, help="folder for what breaks a promise")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    results = list(_all(asked, asked.targets or list(TARGETS)))
    print(_table(results))
    sys.exit(1 if any(result.findings for result in results) else 0)


def _all(asked: argparse.Namespace, names: Sequence[str]) -> list[Result]:
    has_atheris = importlib.util.find_spec("atheris") is not None
    if not has_atheris:
        print("Without libFuzzer's coverage: pip install -r requirements-fuzz.txt", file=sys.stderr)
    shares = sum(TARGETS[name].share for name in names)
    results = []
    for name in names:
        inputs = max(round(asked.inputs * TARGETS[name].share / shares), 1)
        covered = round(inputs * _COVERED) if has_atheris and TARGETS[name].covered else 0
        results.append(_drive(name, "mutations", inputs - covered, asked))
        if covered:
            results.append(_drive(name, "coverage", covered, asked))
    return results


def _command(name: str, driver: str, run: Run) -> list[str]:
    own = [name, str(run.inputs), str(round(run.seconds)), str(run.seed), str(run.findings)]
    return [sys.executable, "-m", f"tests.fuzzing.{driver}", *own]


def _drive(name: str, driver: str, inputs: int, asked: argparse.Namespace) -> Result:
    asked.findings.mkdir(parents=True, exist_ok=True)
    command = _command(name, driver, Run(inputs, asked.seconds, asked.seed, asked.findings))
    before = set(asked.findings.iterdir())
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    assert process.stdout is not None
    done, seconds, said, findings, started_s = 0, 0.0, [], [], time.monotonic()
    shown_s = started_s
    for line in _lines(process):
        done, finding = _read(line, done)
        if finding:
            findings.append(finding)
            print(f"{name}: {finding}", file=sys.stderr, flush=True)
        if not line.startswith("{"):
            said = [*said[-40:], line]
        seconds = time.monotonic() - started_s
        if time.monotonic() - shown_s > _EVERY_S:
            shown_s = time.monotonic()
            print(
                f"{name}, {driver}: {done:,} of {inputs:,} inputs, {done / seconds:,.0f}/s", file=sys.stderr, flush=True
            )
    status = process.wait()
    findings += [str(path) for path in set(asked.findings.iterdir()) - before if path.suffix == ""]  # libFuzzer's
    held = asked.findings / f"{name}.current"
    if status and not findings:
        data = held.read_bytes()[4 : 4 + int.from_bytes(held.read_bytes()[:4], "little")] if held.exists() else b""
        findings.append(str(save(asked.findings, name, data, f"ended with {status}\n{''.join(said)}")))
    held.unlink(missing_ok=True)
    shutil.rmtree(asked.findings / f"{name}.corpus", ignore_errors=True)
    print(
        f"{name}, {driver}: {done:,} inputs in {seconds:.0f} s, {len(findings)} findings", file=sys.stderr, flush=True
    )
    return Result(name, driver, done, seconds, findings)


def _lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    """What the process says; it is ended when it says nothing for long."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(_SILENCE_S):
            line = process.stdout.readline()
            if not line:
                return
            yield line
    process.kill()


def _read(line: str, done: int) -> tuple[int, str | None]:
    """How many inputs there were, and a finding, from a line of either driver."""
    if line.startswith("{"):
        progress = json.loads(line)
        return progress["inputs"], f"{progress['finding']}: {progress['reason']}" if "finding" in progress else None
    counted = re.match(r"#(\d+)\s|stat::number_of_executed_units:\s*(\d+)|Done (\d+) runs", line)
    return (max(done, int(next(filter(None, counted.groups())))), None) if counted else (done, None)


def _table(results: Sequence[Result]) -> str:
    rows = [
        (
            result.target,
            result.driver,
            f"{result.inputs:,}",
            f"{result.inputs / max(result.seconds, 1e-9):,.0f}",
            str(len(result.findings)),
        )
        for result in results
    ]
    total_s = sum(result.seconds for result in results)
    inputs = sum(result.inputs for result in results)
    faults = sum(len(result.findings) for result in results)
    rows.append(("all", "", f"{inputs:,}", f"{inputs / max(total_s, 1e-9):,.0f}", str(faults)))
    head = ("target", "driver", "inputs", "per second", "findings")
    lines = [head, ("---", "---", "--:", "--:", "--:"), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
