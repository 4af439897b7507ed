"""Warming up: what takes seconds when it is first used is done beside the requests, as a process begins to serve."""

import time
from threading import Thread

import structlog

from app.detectors.choosing import prepare

log = structlog.get_logger()


def begin_warm_up() -> None:
    """Have the loops compiled or loaded that fits and predictions by `auto` run, in a thread, while others serve."""
    Thread(target=_warm_up, name="warm-up", daemon=True).start()


def _warm_up() -> None:
    started = time.monotonic()
    try:
        prepare()
    except Exception as error:  # noqa: BLE001  a fit will say what is wrong to whom it concerns
        log.warning("warm-up failed", reason=str(error))
        return
    log.info("warmed up", seconds=round(time.monotonic() - started, 1))
