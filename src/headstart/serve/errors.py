"""Every way in which the server says no: a status, a stable code, and a sentence for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from headstart.errors import PhotoError

# By code: its status. The codes are part of the interface and never change their meaning.
STATUSES = {
    "bad_request": 400,
    "no_photos": 400,
    "unauthorized": 401,
    "not_found": 404,
    "unknown_model": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "too_large": 413,
    "too_many_photos": 413,
    "not_an_image": 415,
    "unsupported_media_type": 415,
    "bomb": 422,
    "damaged": 422,
    "unknown_label": 422,
    "internal": 500,
    "overloaded": 503,
    "draining": 503,
}
# What a `PhotoError` says, by its kind; the others are damaged.
_PHOTO_CODES = {"empty": "not_an_image", "raw": "not_an_image", "not_an_image": "not_an_image", "bomb": "bomb"}
# As nginx writes the status of a request whose client has gone; nobody receives it.
CLIENT_LEFT = 499
INTERNAL = "The server failed at this request; its operator finds the reason in the server's log."


@dataclass(eq=False)
class Refusal(Exception):
    """A request, or one of its photos, that the server does not answer, and why."""

    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUSES[self.code]

    def told(self) -> dict[str, str]:
        """Return code and message as JSON values."""
        return {"code": self.code, "message": self.message}


class ClientLeft(Exception):
    """The client closed its connection before its request was answered."""


def overloaded(what: str) -> Refusal:
    """Return the refusal of work for which there is no room now."""
    return Refusal("overloaded", f"{what}. Try again in a moment.", {"Retry-After": "1"})


def draining() -> Refusal:
    """Return the refusal of new work by a server that is stopping."""
    return Refusal("draining", "The server is stopping and takes no new work.", {"Retry-After": "5"})


def refusal_of(error: PhotoError) -> Refusal:
    """Return what is said of a photo that cannot be read."""
    problem = error.problem[:1].upper() + error.problem[1:]
    return Refusal(_PHOTO_CODES.get(error.kind, "damaged"), f"{problem}; expected a whole JPEG, PNG, WebP or the like.")


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return JSON values as an answer; what is in them needs no checking."""
    return Response(json.dumps(value), status, headers, "application/json")


def error_response(refusal: Refusal, path: str) -> Response:
    """Return a refusal as JSON, in the form of the protocol that the path belongs to."""
    body = {"error": refusal.message if path.startswith("/v2") else refusal.told()}
    return json_response(body, refusal.status, refusal.headers)
