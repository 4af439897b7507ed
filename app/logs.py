"""Logging: one line an event, on standard error; for people or as JSON."""

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from io import StringIO
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

REQUEST_ID = "tidemark.request_id"
"""Where the scope of a request has its id."""

_MOST_CHARACTERS = 200  # of a series_id that nobody has looked at yet
_request: ContextVar[Mapping[str, Any] | None] = ContextVar("request", default=None)


def log_as_part_of(scope: Mapping[str, Any]) -> None:
    """Have every line from here on, in this task and the threads that it calls, name the request of this ASGI scope.

    A variable for the whole scope, read when there is a line to write: structlog's own costs ten times as much.
    """
    _request.set(scope)


def configure_logs(level: str, log_format: str) -> None:
    """Send our events and those of the libraries the same way."""
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _name_request,
        _end_with_a_word,
    ]
    if log_format == "json":
        rendering: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_write_traceback)
        rendering = [_escape, console]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("alembic", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _name_request(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    scope = _request.get()
    if scope is None:
        return event
    series_id = scope.get("path_params", {}).get("series_id")
    named = {"request_id": scope.get(REQUEST_ID), "series_id": series_id and series_id[:_MOST_CHARACTERS]}
    return {**{name: value for name, value in named.items() if value is not None}, **event}


def _end_with_a_word(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Some libraries' events end with a line end of their own."""
    event["event"] = str(event["event"]).rstrip()
    return event


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep an event on its line, and let nothing in it speak to the terminal."""
    return {name: escape(value) if isinstance(value, str) else value for name, value in event.items()}


def escape(text: str, keep: str = "") -> str:
    """Without characters that no printer shows, such as line ends and those that colour or hide what follows."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def _write_traceback(to: TextIO, exc_info: ExcInfo) -> None:
    """Over several lines, the only lines of the console that are not an event each."""
    traceback = StringIO()
    structlog.dev.plain_traceback(traceback, exc_info)
    to.write(escape(traceback.getvalue(), keep="\n"))
