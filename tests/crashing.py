"""A process of its own that fits once and gets SIGKILL at a chosen step: `python -m tests.crashing STEP ...`."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sqlalchemy import event

from app import packs
from app.artifacts.base import ArtifactStore, ContentStore
from app.bootstrap import Services, build
from app.config import Settings
from app.detectors.base import Fitted
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.series import Series
from app.series_batch import SeriesBatch

STEPS = (
    "while the model blob is unfinished",
    "after the model blob",
    "while the data blob is unfinished",
    "after the data blob",
    "inside the transaction",
    "before commit",
    "after commit",
)
WAYS = ("alone", "together", "packed")
"""A fit stores its artifacts by itself, together with those of other fits, or in the packs of a bulk fit."""


def history(seed: int) -> Series:
    """A history that no other seed gives."""
    values = np.random.default_rng(seed).normal(10.0, 1.0, 50)
    return Series(np.arange(50.0), values)


def die() -> None:
    """What a power cut, the kernel's OOM killer or an impatient operator does."""
    os.kill(os.getpid(), signal.SIGKILL)


class DiesAfterPut:
    """A store after whose first successful put the process is gone."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def put(self, artifacts: Mapping[str, bytes], *, replace: bool = False) -> set[str]:
        self._store.put(artifacts, replace=replace)
        die()
        raise AssertionError


def arm(services: Services, step: str) -> None:
    """Make the process die at this step of the next fit."""
    models, training = services.stores
    if step == "while the model blob is unfinished":
        die_before_link(Path(models.location))
    elif step == "after the model blob":
        dies_after_put(models)
    elif step == "while the data blob is unfinished":
        die_before_link(Path(training.location))
    elif step == "after the data blob":
        dies_after_put(training)
    elif step == "inside the transaction":
        event.listen(services.database.engine, "after_cursor_execute", die_after_the_series_row)
    elif step == "before commit":
        event.listen(services.database.engine, "commit", lambda _: die())
    elif step == "after commit":
        event.listen(services.database.engine.pool, "checkin", lambda *_: die())
    else:
        raise ValueError(step)


def dies_after_put(content: ContentStore) -> None:
    content.store = DiesAfterPut(content.store)  # type: ignore[assignment]


def die_before_link(folder: Path) -> None:
    def hook(name: str, arguments: tuple[object, ...]) -> None:
        if name == "os.link" and Path(str(arguments[1])).is_relative_to(folder.resolve()):
            die()

    sys.addaudithook(hook)


def die_after_the_series_row(_: object, __: object, statement: str, *___: object) -> None:
    if statement.lower().startswith("insert into series"):
        die()


def main(step: str, way: str, database_url: str, data_dir: str, seed: str) -> None:
    services = build(Settings(_env_file=None, database_url=database_url, data_dir=Path(data_dir)))
    arm(services, step)
    if way == "alone":
        services.training.fit("s", history(int(seed)), MeanStd, MeanStdParams())
    elif way == "together":
        services.training.begin_fit("s", history(int(seed)), MeanStd, MeanStdParams()).result()
    else:
        points = history(int(seed))
        fitted = [Fitted(MeanStd.fit(points, MeanStdParams()), None)] * 2
        twice = np.tile(points.timestamps_s, 2), np.tile(points.values, 2)
        batch = SeriesBatch(["s", "t"], np.array([0, 50, 100]), *twice)
        services.registry.publish_many(packs.encode(fitted, batch))


if __name__ == "__main__":
    main(*sys.argv[1:])
