"""Work that goes on beside the requests: the same small thing, again and again, in a thread of its own."""

from collections.abc import Callable
from threading import Event, Thread

import structlog

STOP_S = 1.1
"""For the last call: a database that hangs is given up later than a process has time to end."""

log = structlog.get_logger()


class BackgroundLoop:
    """Calls `action` at once, every `interval_s`, and a last time when it is stopped; goes on whatever that raises."""

    def __init__(self, action: Callable[[], None], *, interval_s: float, failed: str, recovered: str) -> None:
        """`failed` and `recovered` are what the log says, once for each outage."""
        self._action = action
        self._interval_s = interval_s
        self._failed = failed
        self._recovered = recovered
        self._stopping = Event()
        self._thread = Thread(target=self._run, name=type(self).__name__, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns after the last call, or without it when that does not come to an end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        is_failing = is_last = False
        while True:
            is_failing = self._call(is_failing=is_failing)
            if is_last:
                break
            is_last = self._stopping.wait(self._interval_s)

    def _call(self, *, is_failing: bool) -> bool:
        try:
            self._action()
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever it is
            if not is_failing:
                log.warning(self._failed, reason=str(error))
            return True
        if is_failing:
            log.info(self._recovered)
        return False
