"""HTTP as uvicorn speaks it, with the bounds that it leaves to a proxy: time for head and answer, open connections.

Uvicorn waits without end for a client that sends half a head or does not read its answer, and answers what is malformed
in plain text.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from headstart.serve.errors import Refusal, overloaded

MAX_CONNECTIONS = 1024
# The key of an ASGI scope under which a handler finds the connection, see `batching.Connection`.
CONNECTION = "headstart.connection"
# Of a request's line and headers together, in bytes.
_MAX_HEAD = 64 << 10


def protocol_class(seconds: float) -> type[HttpToolsProtocol]:
    """Return the protocol for a server that waits this many seconds for a head, and for what it sends to be read."""

    class Protocol(HttpToolsProtocol):
        """One connection."""

        _leaving: Callable[[], None] | None = None
        _overdue: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None
        _head_size = 0

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self._asked: deque[Any] = deque()  # uvicorn's record of each request that is not answered

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > MAX_CONNECTIONS:
                self._end(overloaded(f"{MAX_CONNECTIONS:,} connections are open already"))
            else:
                self._expect_head()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._overdue is None and (self.cycle is None or self.cycle.response_complete):
                self._expect_head()
            if self._overdue is not None:
                self._head_size += len(data)
            super().data_received(data)
            if self._overdue is not None and self._head_size > _MAX_HEAD:
                self._end(Refusal("bad_request", f"The headers have more than {_MAX_HEAD:,} bytes."))

        def on_headers_complete(self) -> None:
            self._stop_waiting()
            super().on_headers_complete()
            cast(dict[str, Any], self.cycle.scope)[CONNECTION] = self
            while self._asked and self._asked[0].response_complete:
                self._asked.popleft()
            self._asked.append(self.cycle)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self._is_read()
            # Uvicorn tells the last one alone, and the one at work would write to a closed connection.
            for request in self._asked:
                request.disconnected = not request.response_complete
                request.message_event.set()
            super().connection_lost(exc)
            if self._leaving is not None:
                self._leaving()

        def on_leaving(self, act: Callable[[], None] | None) -> None:
            """Have this done when the client leaves; None for nothing any more."""
            self._leaving = act
            # Uvicorn stops reading where much has come at once, and a connection that is not read is never seen to end.
            self.flow.resume_reading()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._expect_reading()

        def resume_writing(self) -> None:
            super().resume_writing()
            if not self.transport.is_closing():
                self._is_read()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.is_closing():
                self._expect_reading()

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._expect_reading()

        def send_400_response(self, msg: str) -> None:
            self._end(Refusal("bad_request", "The request is not HTTP/1.1."))

        def _expect_head(self) -> None:
            self._head_size = 0
            self._overdue = self.loop.call_later(seconds, self._head_is_overdue)

        def _stop_waiting(self) -> None:
            if self._overdue is not None:
                self._overdue.cancel()
                self._overdue = None

        def _head_is_overdue(self) -> None:
            self._end(Refusal("timeout", f"The headers did not arrive within {seconds:g} seconds."))

        def _expect_reading(self) -> None:
            """Give the client so long to read what was sent; a connection that closes waits for that, too."""
            if self._unread is None:
                self._unread = self.loop.call_later(seconds, self.transport.abort)

        def _is_read(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def _end(self, refusal: Refusal) -> None:
            """Answer outside of any request, and close."""
            self._stop_waiting()
            body = json.dumps({"error": refusal.told()}).encode()
            head = [STATUS_LINE[refusal.status], b"content-type: application/json\r\nconnection: close\r\n"]
            head += [f"{name}: {value}\r\n".encode() for name, value in refusal.headers.items()]
            head += [b"content-length: %d\r\n\r\n" % len(body), body]
            self.transport.write(b"".join(head))
            self.transport.close()
            self._expect_reading()

    return Protocol
