"""Bodies and answers as OpenAPI describes them. They are documentation: nothing is validated with them at run time."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from headstart.serve.errors import STATUSES

Code = Literal[
    "bad_request",
    "no_photos",
    "unauthorized",
    "not_found",
    "unknown_model",
    "method_not_allowed",
    "timeout",
    "too_large",
    "too_many_photos",
    "not_an_image",
    "unsupported_media_type",
    "bomb",
    "damaged",
    "unknown_label",
    "internal",
    "overloaded",
    "draining",
]


class Error(BaseModel):
    """Why a request, or one of its photos, has no answer."""

    code: Code
    message: str = Field(description="One or two sentences for a person.")


class ErrorAnswer(BaseModel):
    """Every error of /v1."""

    error: Error


class ModelDescription(BaseModel):
    """One classifier."""

    name: str
    backbone: str
    image_size: int = Field(description="Of the network's view, in pixels.")
    resize_policy: Literal["crop", "squash", "letterbox"]
    class_names: list[str]
    engine: str
    accepts: str | None = Field(description="When a label is to be trusted; null where that is not known.")
    accuracy: float | None = Field(description="On the run's test photos, 0 to 1.")


class LimitsDescription(BaseModel):
    """What a request may hold."""

    max_photos: int
    max_body_bytes: int
    max_pixels: int


class ModelsAnswer(BaseModel):
    """The classifiers; the first one is the default."""

    models: list[ModelDescription]
    limits: LimitsDescription


class Ranked(BaseModel):
    """A class and its probability."""

    label: str
    probability: float = Field(ge=0, le=1)


class PredictionRow(BaseModel):
    """What is said of one photo."""

    name: str | None
    label: str
    probability: float = Field(ge=0, le=1)
    accepted: bool | None = Field(description="Whether the label is to be trusted; null where that is not known.")
    top: list[Ranked]


class ErrorRow(BaseModel):
    """A photo that cannot be read, among others that can."""

    name: str | None
    error: Error


class PredictAnswer(BaseModel):
    """A row for each photo, in the order given."""

    model: str
    predictions: list[PredictionRow | ErrorRow]


class Status(BaseModel):
    """How the server is."""

    status: Literal["ok", "ready"]


class NamedPhoto(BaseModel):
    """A photo in JSON with a name, which comes back with its prediction."""

    name: str | None = None
    data: str = Field(description="The file in base64.")


class PhotosBody(BaseModel):
    """Photos in JSON; each in base64, with a name or without."""

    photos: list[str | NamedPhoto] = Field(min_length=1)


_FILE = {"type": "string", "format": "binary"}
PHOTOS_IN = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["photos"],
                "properties": {"photos": {"type": "array", "minItems": 1, "items": _FILE}},
            }
        },
        "image/*": {"schema": _FILE},
        "application/octet-stream": {"schema": _FILE},
        "application/json": {"schema": PhotosBody.model_json_schema(ref_template="#/components/schemas/{model}")},
    },
}
MODEL_PARAMETER = {
    "name": "model",
    "in": "query",
    "description": "Which classifier; the first one unless told.",
    "schema": {"type": "string"},
}
TOP_K_PARAMETER = {
    "name": "top_k",
    "in": "query",
    "description": "How many classes to name for each photo.",
    "schema": {"type": "integer", "minimum": 1, "default": 5},
}
LABEL_PARAMETER = {
    "name": "label",
    "in": "query",
    "description": "The class that the picture speaks for; the predicted one unless told.",
    "schema": {"type": "string"},
}


def errors(*codes: str, model: type[BaseModel] = ErrorAnswer) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route by their statuses; those that every route has are added."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in (*codes, "unauthorized", "internal"):
        entry = found.setdefault(STATUSES[code], {"model": model, "description": ""})
        entry["description"] += f"{', ' if entry['description'] else ''}{code}"
    return found
