"""Start and stop: the socket, what is said, signals, and an end in which nobody's answer is lost."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import uvicorn

from headstart.classifier import Classifier, load
from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.photos.decode import pillow_warnings_silenced
from headstart.serve.app import make_app
from headstart.serve.limits import Limits
from headstart.serve.protocol import MAX_CONNECTIONS, protocol_class
from headstart.serve.service import Service

# Once asked to stop: for the answers that are owed, then for the connections to close.
_DRAIN_S = 30
_CLOSE_S = 5
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    classifiers: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    limits: Limits | None = None,
    engine: Literal["auto", "openvino", "torch"] = "auto",
    console: Console | None = None,
    log_requests: bool = False,
) -> None:
    """Answer for classifiers over HTTP until SIGINT or SIGTERM; then answer what was taken in, and return.

    Args:
        classifiers: each a classifier's folder, or its run's, or NAME=FOLDER; the first one is the default.
        host: the address to listen at.
        port: 0 for any that is free.
        token: what clients have to show, except for the page and for health.
        limits: of what clients may ask.
        engine: what the networks run on.
        console: where the server says what it does.
        log_requests: whether it says so of each request.

    Raises:
        HeadstartError: when a classifier cannot be loaded, two have one name, or the address is taken.
    """
    limits, console = limits or Limits(), console or Console()
    _check_token(token)
    folders = named_folders(classifiers)
    with contextlib.closing(_listening(host, port)) as listening:
        loaded = {name: load(folder, engine) for name, folder in folders.items()}
        for classifier in loaded.values():
            classifier.engine()
        if token is None and not _is_loopback(listening):
            console.warn(
                f"--host {host}: anyone who reaches this computer can use the server; set --token or $HEADSTART_TOKEN"
            )
        with pillow_warnings_silenced():
            loop = _new_loop()
            try:
                loop.run_until_complete(_serve(loaded, listening, token, limits, console, log_requests))
            finally:
                loop.close()


def named_folders(classifiers: Sequence[str]) -> dict[str, Path]:
    """Return the folders of classifiers by name: NAME=FOLDER, or a folder, whose name is its run's or its own.

    Raises:
        HeadstartError: when two have one name, or a name has a slash.
    """
    folders: dict[str, Path] = {}
    for argument in classifiers:
        name, found, folder = argument.partition("=")
        path = Path(folder)
        if not found or Path(argument).exists():
            path = Path(argument)
            whole = path.resolve()
            name = whole.parent.name if whole.name == "classifier" else whole.name
        if not name or "/" in name or not name.isprintable():
            raise HeadstartError(f"{argument}: the name {name!r} cannot stand in an address.", "Give NAME=FOLDER.")
        if name in folders:
            raise HeadstartError(
                f"{argument}: there is a classifier of the name {name} already.", "Give another: NAME=FOLDER."
            )
        folders[name] = path
    return folders


def _check_token(token: str | None) -> None:
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise HeadstartError(
            "--token: is empty or has characters that a header cannot hold; expected letters, digits and signs.",
            "For example: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HeadstartError(
            f"--host {host} --port {port}: cannot listen there: {reason}.", "Choose another port; 0 takes any."
        ) from None


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


async def _serve(
    classifiers: Mapping[str, Classifier],
    listening: socket.socket,
    token: str | None,
    limits: Limits,
    console: Console,
    log_requests: bool,
) -> None:
    service = Service(classifiers, limits)
    app = make_app(service, token, console.say if log_requests else None)
    config = uvicorn.Config(
        app,
        loop="none",
        http=protocol_class(limits.receive_timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=MAX_CONNECTIONS,
        timeout_graceful_shutdown=_CLOSE_S,
    )
    server = _Server(config)
    with _stop_asked() as stop:
        answering = asyncio.create_task(server.serve([listening]))
        for line in _told(service, listening, token):
            console.say(line)
        await _first_of(stop.wait(), answering)
        console.say("Stopping   what was taken in is answered; again to stop at once")
        stop.clear()
        await _first_of(stop.wait(), asyncio.ensure_future(service.drain(_DRAIN_S)))
        server.force_exit = stop.is_set()
        server.should_exit = True
        await answering
        service.close()


async def _first_of(waited_for: Coroutine[Any, Any, Any], other: asyncio.Future[Any]) -> None:
    """Wait for one of two; the first one is given up when the other one comes."""
    task = asyncio.ensure_future(waited_for)
    await asyncio.wait({task, other}, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()


class _Server(uvicorn.Server):
    """Uvicorn, with signals left to us: it would die of them in the end instead of exiting with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _stop_asked() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    # Not the loop's own handlers, which Windows has not.
    before = {number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set)) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _told(service: Service, listening: socket.socket, token: str | None) -> Iterator[str]:
    host, port = listening.getsockname()[:2]
    limits = service.limits
    for model in service.models.values():
        said = model.described()
        yield f"Model      {model.name}: {len(said['class_names'])} classes, {said['backbone']}, {said['engine']}"
    yield (
        f"Limits     {limits.max_photos} photos and {limits.max_body / (1 << 20):g} MB a request, "
        f"{limits.max_pixels:,} pixels a photo, {limits.receive_timeout:g} s to send it, {limits.queue} photos waiting"
    )
    open_to = "programs of this computer alone" if _is_loopback(listening) else "everyone who reaches it"
    yield f"Token      {'wanted: Authorization: Bearer TOKEN' if token else f'none: {open_to} may use it'}"
    yield f"Serving    http://{f'[{host}]' if ':' in host else host}:{port} (stop with Ctrl-C)"
