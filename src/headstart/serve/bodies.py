"""From the bytes of a request to its photos: within the limits, in memory, in any of three forms."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import anyio

from headstart.serve.errors import ClientLeft, Refusal, overloaded
from headstart.serve.limits import Limits

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Parts of a form that are not photos, and the bytes of a part's headers: more of them are no form of a person's.
_MAX_FIELDS = 64
_MAX_PART_HEAD = 16 << 10
_FORMS = "multipart/form-data with files, an image as the body, or application/json with photos in base64"


class Photo(NamedTuple):
    """A photo of a request: what the client calls it (never a path here), and the bytes of its file."""

    name: str | None
    data: bytes


class Bodies:
    """The bodies that are held in memory, of all requests together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held = 0

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes room for n bytes more of one request; all of it is given back at the end.

        Raises:
            Refusal: from that function, when the request is too large or all bodies together are.
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            taken += count
            self.held += count
            if taken > self._limits.max_body:
                raise _too_large(self._limits)
            if self.held > self._limits.all_bodies:
                raise overloaded("The bodies of other requests fill the server's memory")

        try:
            yield take
        finally:
            self.held -= taken


async def read_body(receive: Receive, length: str | None, take: Callable[[int], None], limits: Limits) -> bytes:
    """Receive a whole body.

    Args:
        receive: the ASGI channel.
        length: what the client says it is, if it does.
        take: from `Bodies.room`; called before the bytes are kept.
        limits: of size and time.

    Raises:
        Refusal: when it is too large or too slow.
        ClientLeft: when the client has gone.
    """
    if length is not None and length.isdecimal() and int(length) > limits.max_body:
        raise _too_large(limits)
    chunks: list[bytes] = []
    try:
        with anyio.fail_after(limits.receive_timeout):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                chunk = message.get("body", b"")
                take(len(chunk))
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        raise Refusal(
            "timeout", f"The body did not arrive within {limits.receive_timeout:g} seconds.", {"Connection": "close"}
        ) from None


def photos_of(content_type: str, body: bytes, limits: Limits) -> list[Photo]:
    """Take a body apart.

    Args:
        content_type: the header; "" where there is none.
        body: the whole body.
        limits: of the number of photos.

    Raises:
        Refusal: when the form is another or malformed, or there are no photos or too many.
    """
    media_type = content_type.split(";", 1)[0].strip().lower()
    if media_type.startswith("image/") or media_type in ("application/octet-stream", ""):
        photos = [Photo(None, body)] if body else []
    elif media_type == "multipart/form-data":
        photos = _of_form(content_type, body, limits)
    elif media_type == "application/json":
        photos = _of_json(body, limits)
    else:
        raise Refusal("unsupported_media_type", f"The body is of type {media_type[:80]}; expected {_FORMS}.")
    if not photos:
        raise Refusal("no_photos", f"There is no photo in the request; expected {_FORMS}.")
    return photos


def is_costly(content_type: str, body: bytes) -> bool:
    """Say whether taking a body apart would hold up the event loop noticeably."""
    return len(body) > 1 << 18 and not content_type.startswith(("image/", "application/octet-stream"))


def parsed_json(body: bytes) -> Any:
    """Read JSON.

    Raises:
        Refusal: when it is malformed.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Refusal("bad_request", f"The body is not JSON: {reason}.") from None


def from_base64(text: Any, what: str) -> bytes:
    """Decode base64.

    Raises:
        Refusal: when it is not base64.
    """
    if not isinstance(text, str):
        raise Refusal("bad_request", f"{what} is {_kind(text)}; expected a string of base64.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal("bad_request", f"{what} is not base64: {error}.") from None


def too_many_photos(limits: Limits) -> Refusal:
    """Return the refusal of a request with more photos than one may have."""
    return Refusal("too_many_photos", f"There are more than {limits.max_photos} photos in the request.")


def _too_large(limits: Limits) -> Refusal:
    return Refusal("too_large", f"The body has more than {limits.max_body:,} bytes, the most that this server takes.")


def _of_json(body: bytes, limits: Limits) -> list[Photo]:
    content = parsed_json(body)
    items = content.get("photos") if isinstance(content, dict) else None
    if not isinstance(items, list):
        raise Refusal("bad_request", 'The JSON has no list of photos; expected {"photos": ["BASE64", ...]}.')
    if len(items) > limits.max_photos:
        raise too_many_photos(limits)
    photos = []
    for number, item in enumerate(items):
        name, data = (item.get("name"), item.get("data")) if isinstance(item, dict) else (None, item)
        if name is not None and not isinstance(name, str):
            raise Refusal("bad_request", f"photos[{number}].name is {_kind(name)}; expected a string.")
        photos.append(Photo(name, from_base64(data, f"photos[{number}]")))
    return photos


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")


def _of_form(content_type: str, body: bytes, limits: Limits) -> list[Photo]:
    """Cut a form at its boundaries: the whole body is in memory already, and a search is as quick for hostile ones."""
    from python_multipart.multipart import parse_options_header

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refusal("bad_request", "The form has no boundary in its Content-Type.")
    most = limits.max_photos + _MAX_FIELDS
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary, most + 2)
    if len(parts) > most + 1:
        raise too_many_photos(limits)
    if not parts or not parts.pop().startswith(b"--"):
        raise Refusal("bad_request", "The form is malformed: its last boundary is missing.")
    photos = []
    for part in parts:
        head, found, data = part.partition(b"\r\n\r\n")
        if not found or len(head) > _MAX_PART_HEAD:
            raise Refusal("bad_request", "The form is malformed: a part has no end of its headers.")
        lines = (line.partition(b":") for line in head.split(b"\r\n"))
        disposition = next((value for name, _, value in lines if name.strip().lower() == b"content-disposition"), b"")
        name = parse_options_header(disposition.strip())[1].get(b"filename")
        if name or (name is not None and data):  # a file field that a browser left empty has neither
            photos.append(Photo(name.decode("utf-8", "replace") or None, data))
    if len(photos) > limits.max_photos:
        raise too_many_photos(limits)
    return photos
