"""HTTP as uvicorn speaks it, with a limit on what comes before the body, which uvicorn does not have."""

from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
"""Request line and headers: four times what the common proxies let through."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """Answers 400 and hangs up when a request's head is longer than MAX_HEAD_BYTES."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = True
        self._head_bytes = 0

    @override
    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self.logger.warning("A request's headers are too large.")
            self.send_400_response(f"The headers of a request may have {MAX_HEAD_BYTES} bytes.")

    @override
    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_bytes = 0
        super().on_headers_complete()
