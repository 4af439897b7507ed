"""Serving: one process, or the one that several workers run; how it begins, and how it ends in time."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from socket import socket
from threading import Timer
from types import FrameType

import structlog
import typer
import uvicorn
from typing_extensions import override

from app import __version__
from app.bootstrap import Services, build
from app.cli.listening import Listener, listen
from app.cli.protocol import LimitedHttpProtocol, limited_protocol
from app.cli.tls import find_certificate
from app.cli.tuning import tune
from app.config import Settings
from app.main import create_app

LAST_S = 9.5
"""After that much of a shutdown the process ends itself: whoever supervises it kills it after 10 s, if it is Docker."""
_TICKS_A_SECOND = 10
_SHUTDOWN_S = 7
"""For requests under way."""

log = structlog.get_logger()


def open_services(settings: Settings) -> Services:
    """The services of a process that serves. Raises what stands in the way of serving at all."""
    find_certificate(settings)
    services = build(settings)
    services.keyring.open()
    return services


def serve_alone(settings: Settings) -> None:
    """Serve in this process until a signal ends it. Raises what stands in the way of that."""
    services = open_services(settings)
    sockets = listen(settings.host, settings.port)
    run(services, sockets, lambda: announce(sockets, settings))


def run(services: Services, sockets: list[socket], when_ready: Callable[[], None]) -> None:
    """Serve on these sockets until a signal ends it."""
    tune()
    settings = services.settings
    config = uvicorn.Config(
        create_app(services),
        workers=settings.workers,
        http=limited_protocol(settings),  # type: ignore[arg-type]  # as good as a class
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        **find_certificate(settings),
    )
    with suppress(KeyboardInterrupt):  # Ctrl+C is how one stops it
        Server(config, services, when_ready).run(sockets)


def announce(sockets: Sequence[socket], settings: Settings) -> None:
    """Say where the service listens."""
    scheme = "https" if settings.ssl_certfile else "http"
    processes = f" Worker processes: {settings.workers}." if settings.workers > 1 else ""
    for listening in sockets:
        host, port = listening.getsockname()[:2]
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        typer.echo(f"Tidemark {__version__} is ready: {url} (API: {url}/docs).{processes} Stop it with Ctrl+C.")


class Server(uvicorn.Server):
    """Says when it listens; on SIGTERM it is unready first, and ends in time whatever the clients do."""

    def __init__(self, config: uvicorn.Config, services: Services, when_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._services = services
        self._when_ready = when_ready
        self._leaves_at_s = 0.0

    @override
    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup([])

        def make_protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        tls, workers = self.config.ssl, self.config.workers
        self.servers = [Listener(each, make_protocol, tls, workers) for each in sockets or ()]  # type: ignore[misc]
        self._when_ready()

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        delay_s = 0.0
        if sig == signal.SIGTERM and not self.should_exit:  # a second one is an order to leave now
            delay_s = self._services.settings.shutdown_delay_s
        self._services.shutting_down.set()
        self._leaves_at_s = time.monotonic() + delay_s
        last = Timer(delay_s + LAST_S, _leave)
        last.daemon = True
        last.start()
        super().handle_exit(sig, frame)

    @override
    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_SECOND == 0:
            now_s = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, LimitedHttpProtocol):
                    connection.check(now_s)
        return await super().on_tick(counter) and time.monotonic() >= self._leaves_at_s


def _leave() -> None:
    log.error("shutdown cut short", after_s=LAST_S)
    os._exit(1)
