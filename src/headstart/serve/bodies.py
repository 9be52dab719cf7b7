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

# Parts of a form that are not photos, and headers of a part: more of them are no form of a person's.
_MAX_FIELDS = 64
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
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refusal("bad_request", "The form has no boundary in its Content-Type.")
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refusal("bad_request", f"The form is malformed: {error}.") from None
    if not form.whole:
        raise Refusal("bad_request", "The form ends in the middle of a part.")
    return form.photos


class _Form:
    """Collects the files of a form while it is parsed; in memory, where the whole body is already."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fields = 0
        self.photos: list[Photo] = []
        self.whole = False
        self._part()

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._part,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_part_data": lambda data, start, end: self._pieces.append(data[start:end]),
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part(self) -> None:
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._pieces: list[bytes] = []

    def _header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _part_end(self) -> None:
        from python_multipart.multipart import parse_options_header

        name = parse_options_header(self._disposition)[1].get(b"filename")
        if name is None:
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise Refusal("bad_request", f"The form has more than {_MAX_FIELDS} fields that are not files.")
        elif name or self._pieces:  # a file field that a browser left empty has neither
            if len(self.photos) == self._limits.max_photos:
                raise too_many_photos(self._limits)
            self.photos.append(Photo(name.decode("utf-8", "replace") or None, b"".join(self._pieces)))

    def _end(self) -> None:
        self.whole = True
