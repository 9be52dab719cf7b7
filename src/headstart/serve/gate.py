"""What every request passes: the token, the counters, and the form of every error.

One ASGI layer around the routes, and none of its work depends on them.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from headstart.serve.errors import CLIENT_LEFT, INTERNAL, ClientLeft, Refusal, error_response
from headstart.serve.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Endpoint = Callable[[Request], Awaitable[Response]]

# After an early answer the rest of the body is read and thrown away for this long: a connection that is closed at once
# is reset, and the client never sees the answer.
_LINGER_S = 2.0
# Open without a token: the page, which asks for it, and what load balancers look at.
_OPEN = frozenset(("/", "/healthz", "/readyz"))
_PAGE_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        b"media-src 'self' blob: mediastream:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]
_NOSNIFF = (b"x-content-type-options", b"nosniff")

log = logging.getLogger("headstart.serve")


class Gate:
    """The outermost layer.

    Args:
        app: the routes.
        metrics: where requests are counted.
        token: what clients have to show; None for nothing.
        say: prints one line for each request; None for none.
        direct: endpoints by method and path that are called without the layers of the app, which take a quarter of the
            event loop's time and have nothing to add to them; the app describes them.
    """

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        token: str | None,
        say: Callable[[str], None] | None,
        direct: Mapping[tuple[str, str], Endpoint],
    ) -> None:
        self._app = app
        self._direct = direct
        self._metrics = metrics
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._say = say
        self._counters: dict[tuple[str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            self._check_token(scope)
            endpoint = self._direct.get((scope["method"], scope["path"]))
            if endpoint is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                response = await endpoint(Request(scope, exchange.receive))
                await response(scope, exchange.receive, exchange.send)
        except ClientLeft:
            exchange.status = CLIENT_LEFT
        except asyncio.CancelledError:
            exchange.status = exchange.status or CLIENT_LEFT
            raise
        except Refusal as refusal:
            await self._refuse(refusal, scope, exchange)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            await self._refuse(Refusal("internal", INTERNAL), scope, exchange)
        finally:
            self._count(scope, exchange)

    def _check_token(self, scope: Scope) -> None:
        if self._expected is None or scope["path"] in _OPEN or scope["path"].startswith("/static/"):
            return
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, secret = shown.partition(b" ")
        if not hmac.compare_digest(kind.capitalize() + b" " + secret.strip(), self._expected):
            what = "is wrong" if shown else "is missing"
            raise Refusal(
                "unauthorized",
                f"The token {what}; expected Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )

    async def _refuse(self, refusal: Refusal, scope: Scope, exchange: _Exchange) -> None:
        if exchange.status:
            return  # an answer has begun, and uvicorn ends the connection
        await error_response(refusal, scope["path"])(scope, exchange.receive, exchange.send)

    def _count(self, scope: Scope, exchange: _Exchange) -> None:
        route = getattr(scope.get("route"), "path", None)
        if route is None and (scope["method"], scope["path"]) in self._direct:
            route = scope["path"]
        route = route or ("/static" if exchange.is_page else "other")
        key = (route, exchange.status)
        if key not in self._counters:
            self._counters[key] = (
                self._metrics.requests.labels(route, str(exchange.status)),
                self._metrics.request_seconds.labels(route),
            )
        requests, seconds = self._counters[key]
        took = time.perf_counter() - exchange.started
        requests.inc()
        seconds.observe(took)
        if self._say is not None:
            client = scope["client"][0] if scope.get("client") else "-"
            path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")
            self._say(f"{client} {scope['method']} {path} {exchange.status} {1000 * took:.1f} ms")


class _Exchange:
    """One request and its answer: knows whether the body was received, and gives every answer its headers."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = time.perf_counter()
        self.status = 0
        self._receive, self._send = receive, send
        self.is_page = scope["path"] == "/" or scope["path"].startswith("/static/")
        self._more = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._more = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), _NOSNIFF]
            if self.is_page:
                headers += _PAGE_HEADERS
            if self._more:
                headers = [pair for pair in headers if pair[0].lower() != b"connection"]
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif self._more and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        async def drain() -> None:
            while self._more:
                await self.receive()

        try:
            await asyncio.wait_for(drain(), _LINGER_S)
        except asyncio.TimeoutError:
            self._more = False
