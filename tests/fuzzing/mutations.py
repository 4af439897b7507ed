"""What gives inputs to one target, in a process of its own, which a crash, a hang or a leak may end.

The process writes a line of JSON to its standard output each second and for each finding. The input under way stands in
a file that outlives it, so that whoever waits for it knows what it died of.
"""

import json
import mmap
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzzing.inputs import Mutations
from tests.fuzzing.targets import TARGETS, Target

MOST_S = 1.0
"""Processor time that an input may take: of the clock, a busy machine takes more."""
_MEMORY_BYTES = 3 * 2**30
_HELD_BYTES = 2**20
_MOST_FINDINGS = 10
_SHARE_STRUCTURED = 0.2
_WARM_UP = 20
_FIRST_S = 60.0
"""Of the first inputs, at which modules are imported and loops compiled."""


class Hung(Exception):
    """An input took longer than `MOST_S`."""


class Run(NamedTuple):
    """How far to go with a target."""

    inputs: int
    seconds: float
    seed: int
    findings: Path


def save(folder: Path, target: str, data: bytes, reason: str) -> Path:
    """Keep an input that broke a promise, and why."""
    folder.mkdir(parents=True, exist_ok=True)
    number = sum(1 for _ in folder.glob(f"{target}-*.bin"))
    path = folder / f"{target}-{number}.bin"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(reason, errors="backslashreplace")
    return path


class Drive:
    """Gives inputs to a target, counts them, and keeps what breaks it."""

    def __init__(self, name: str, target: Target, run: Run) -> None:
        self._name, self._target, self._run = name, target, run
        self._inputs = 0
        self._places: set[str] = set()
        self._outcomes: set[object] = set()
        self._has_hung = False
        self._said_s = self._started_s = time.monotonic()
        run.findings.mkdir(parents=True, exist_ok=True)
        held = run.findings / f"{name}.current"
        held.write_bytes(bytes(_HELD_BYTES))
        with held.open("r+b") as file:
            self._held = mmap.mmap(file.fileno(), _HELD_BYTES)

    def go(self) -> None:
        """Structured inputs, then mutations; the rest of the run's time and number each."""
        signal.signal(signal.SIGPROF, _raise_hung)
        seeds = self._target.seeds()
        for data in seeds:
            self.give(data)
        if self._target.structured is not None:
            self._structured(round(self._run.inputs * _SHARE_STRUCTURED))
        mutations = Mutations(seeds, self._target.tokens, self._run.seed)
        while self._goes_on(self._run.inputs):
            data = mutations.next()
            if self.give(data):
                mutations.learn(data)
        self.say()

    def give(self, data: bytes) -> bool:
        """Whether something came of it that came of no other before."""
        self._inputs += 1
        self._held[:4] = min(len(data), _HELD_BYTES - 4).to_bytes(4, "little")
        self._held[4 : 4 + len(data)] = data[: _HELD_BYTES - 4]
        try:
            with _limited(MOST_S if self._inputs > _WARM_UP else _FIRST_S):
                outcome = self._target.check(data)
        except Exception as error:  # noqa: BLE001  whatever it is, it is a finding
            self._find(data, error)
            return False
        if time.monotonic() - self._said_s >= 1:
            self.say()
        is_new = outcome not in self._outcomes and len(self._outcomes) < 100_000
        self._outcomes.add(outcome)
        return is_new

    def say(self, **more: object) -> None:
        """How far it is."""
        self._said_s = time.monotonic()
        progress = {"inputs": self._inputs, "seconds": self._said_s - self._started_s, "outcomes": len(self._outcomes)}
        print(json.dumps(progress | more), flush=True)

    def _find(self, data: bytes, error: Exception) -> None:
        self._has_hung |= isinstance(error, Hung)
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{type(error).__name__} {[(frame.filename, frame.lineno) for frame in frames[-3:]]}"
        if place in self._places or len(self._places) >= _MOST_FINDINGS:
            return
        self._places.add(place)
        path = save(self._run.findings, self._name, data, "".join(traceback.format_exception(error)))
        self.say(finding=str(path), reason=f"{type(error).__name__}: {error}"[:300])

    def _goes_on(self, inputs: int) -> bool:
        """Not after a hang: the next is as likely, and takes as long."""
        return not self._has_hung and self._inputs < inputs and time.monotonic() - self._started_s < self._run.seconds

    def _structured(self, inputs: int) -> None:
        assert self._target.structured is not None
        while self._goes_on(inputs):  # in parts, as Hypothesis remembers all that it has tried
            part = min(inputs - self._inputs, 5_000)

            @seed(self._run.seed + self._inputs)
            @settings(
                max_examples=part,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(self._target.structured)
            def give(data: bytes) -> None:
                if self._goes_on(inputs):
                    self.give(data)

            before = self._inputs
            give()
            if self._inputs == before:
                break


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises Hung in the middle of what takes too long."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _raise_hung(_: int, __: FrameType | None) -> None:
    raise Hung(f"took more than {MOST_S:g} s")


def main() -> None:
    """Arguments: the target, inputs, seconds, seed, and the folder of findings."""
    name, inputs, seconds, seed_, findings = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    Drive(name, TARGETS[name], Run(int(inputs), float(seconds), int(seed_), Path(findings))).go()


if __name__ == "__main__":
    main()
