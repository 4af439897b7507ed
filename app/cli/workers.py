"""Several worker processes that share a port, and the process that watches over them."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from types import FrameType

import structlog

from app.bootstrap import build
from app.cli.listening import listen
from app.cli.serving import LAST_S, announce, open_services, run
from app.config import Settings, share_metrics
from app.logs import configure_logs
from app.telemetry import forget_process

_TICK_S = 0.2
_RETRY_S = 1.0
"""Between two starts of a worker that does not come to serve."""

log = structlog.get_logger()


def serve_with_workers(settings: Settings) -> None:
    """Serve with `settings.workers` processes until a signal ends them all.

    Raises what stands in the way of serving at all, ConfigurationError when the address cannot be listened on.
    """
    open_services(settings).close()
    sockets = listen(settings.host, settings.port)
    folder = Path(tempfile.mkdtemp(prefix="tidemark-metrics-"))
    share_metrics(folder)
    try:
        is_sound = _Supervisor(settings, sockets, folder).watch()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not is_sound:
        sys.exit(1)


class _Worker:
    """A worker process, and the pipe by which it says that it serves and notices that this process is gone."""

    def __init__(self, settings: Settings, sockets: Sequence[socket.socket]) -> None:
        context = get_context("spawn")  # not a copy of this process: libraries have threads and locks of their own
        self._pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(settings, sockets, theirs))
        self.process.start()
        theirs.close()
        self.is_ready = False

    def notice(self) -> None:
        """See whether it says that it serves."""
        with suppress(EOFError, OSError):
            self.is_ready = self.is_ready or (self._pipe.poll() and bool(self._pipe.recv()))

    def send_signal(self, number: int) -> None:
        """Send it one, if it is still there."""
        with suppress(ProcessLookupError):
            if self.process.pid is not None and self.process.is_alive():
                os.kill(self.process.pid, number)

    def bury(self) -> None:
        """Once it is dead."""
        self.process.join()
        self._pipe.close()


class _Supervisor:
    """Starts workers, replaces those that die, and ends them."""

    def __init__(self, settings: Settings, sockets: Sequence[socket.socket], folder: Path) -> None:
        self._settings = settings
        self._sockets = sockets
        self._folder = folder
        self._signals: list[int] = []
        self._workers: list[_Worker] = []
        self._starts_at_s = 0.0

    def watch(self) -> bool:
        """Until a signal comes; False when the workers never came to serve."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        self._fill()
        was_ready = False
        while not self._signals:
            connection.wait([worker.process.sentinel for worker in self._workers], _TICK_S)
            for worker in self._workers:
                worker.notice()
            if not was_ready and all(worker.is_ready for worker in self._workers):
                was_ready = True
                announce(self._sockets, self._settings)
            if self._bury() and not was_ready:
                log.error("no worker could start")
                break
            self._fill()
        self._end()
        return was_ready or bool(self._signals)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)

    def _fill(self) -> None:
        if time.monotonic() < self._starts_at_s:
            return
        while len(self._workers) < self._settings.workers:
            self._workers.append(_Worker(self._settings, self._sockets))

    def _bury(self) -> bool:
        """Forget the workers that died, and say so; whether there were any."""
        dead = [worker for worker in self._workers if not worker.process.is_alive()]
        for worker in dead:
            self._workers.remove(worker)
            pid, exit_code = worker.process.pid, worker.process.exitcode
            log.error("worker died, another one is started", pid=pid, exit_code=exit_code)
            if not worker.is_ready:
                self._starts_at_s = time.monotonic() + _RETRY_S
            self._clean_up(worker)
        return bool(dead)

    def _clean_up(self, worker: _Worker) -> None:
        worker.bury()
        if worker.process.pid is not None:
            forget_process(self._folder, worker.process.pid)

    def _end(self) -> None:
        """Pass the signal on, and kill what is still there when the time is over."""
        number = self._signals[0] if self._signals else signal.SIGTERM
        delay_s = self._settings.shutdown_delay_s if number == signal.SIGTERM else 0.0
        ends_at_s = time.monotonic() + delay_s + LAST_S
        for listening in self._sockets:
            listening.close()
        passed_on = 0
        while alive := [worker for worker in self._workers if worker.process.is_alive()]:
            if time.monotonic() > ends_at_s:
                log.error("shutdown cut short", after_s=LAST_S)
                number, passed_on = signal.SIGKILL, 0
            if passed_on < max(1, len(self._signals)):
                passed_on += 1
                for worker in alive:
                    worker.send_signal(number)
            connection.wait([worker.process.sentinel for worker in alive], _TICK_S)
        for worker in self._workers:
            self._clean_up(worker)


def _work(settings: Settings, sockets: list[socket.socket], pipe: Connection) -> None:
    """What a worker process runs."""
    configure_logs(settings.log_level, settings.log_format)
    Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    run(build(settings), sockets, lambda: pipe.send(True))


def _end_with_parent(pipe: Connection) -> None:
    """Nothing comes through the pipe but its end."""
    with closing(pipe), suppress(EOFError, OSError):
        pipe.recv()
    os.kill(os.getpid(), signal.SIGTERM)
