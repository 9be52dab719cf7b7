"""The Open Inference Protocol, version 2, over HTTP with JSON; without its binary extension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from headstart import __version__
from headstart.classifier import Prediction
from headstart.photos.views import Pixels
from headstart.serve import schemas
from headstart.serve.bodies import from_base64, parsed_json, read_body, too_many_photos
from headstart.serve.errors import Refusal, json_response
from headstart.serve.limits import Limits
from headstart.serve.protocol import CONNECTION
from headstart.serve.service import Model, Service

_NO_BINARY = "The binary data extension is not supported; send and ask for tensors as JSON."
# A body of more bytes than this is read in a thread.
_LARGE = 1 << 16


class V2Error(BaseModel):
    """Every error of /v2."""

    error: str


class Tensor(BaseModel):
    """A tensor in JSON: its values flat, or nested as its shape says."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class TensorDescription(BaseModel):
    """What a tensor is like; -1 stands for any size."""

    name: str
    datatype: str
    shape: list[int]


class WantedOutput(BaseModel):
    """An output that is asked for."""

    name: str


class InferBody(BaseModel):
    """An inference: one input, `pixels` (UINT8, [n, height, width, 3], RGB) or `photos` (BYTES, [n], base64)."""

    id: str | None = None
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] | None = None


class InferAnswer(BaseModel):
    """What was inferred."""

    model_name: str
    id: str | None = None
    outputs: list[Tensor]


class ServerMetadata(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """A model, its inputs (one of which is given) and outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorDescription]
    outputs: list[TensorDescription]


class Live(BaseModel):
    """Whether the server lives."""

    live: bool


class Ready(BaseModel):
    """Whether the server takes work."""

    ready: bool


class ModelReady(BaseModel):
    """Whether a model takes work."""

    name: str
    ready: bool


def add_v2(app: FastAPI, service: Service) -> None:
    """Add the protocol's routes to an application."""

    async def server(request: Request) -> Response:
        """Describe the server."""
        return json_response({"name": "headstart", "version": __version__, "extensions": []})

    async def live(request: Request) -> Response:
        """Say that the server lives."""
        return json_response({"live": True})

    async def ready(request: Request) -> Response:
        """Say whether the server takes work."""
        service.check_ready()
        return json_response({"ready": True})

    async def model_ready(request: Request) -> Response:
        """Say whether a model takes work."""
        name = service.model(request.path_params["name"]).name
        service.check_ready()
        return json_response({"name": name, "ready": True})

    async def metadata(request: Request) -> Response:
        """Describe a model's inputs and outputs."""
        return json_response(_described(service.model(request.path_params["name"])))

    async def infer(request: Request) -> Response:
        """Classify photos, given as pixels or as files in base64."""
        model = service.model(request.path_params["name"])
        if "inference-header-content-length" in request.headers:
            raise Refusal("bad_request", _NO_BINARY)
        with service.bodies.room() as take, service.work():
            body = await read_body(request.receive, request.headers.get("content-length"), take, service.limits)
            arguments = (body, model, service.limits)
            call = await service.aside(_read, *arguments) if len(body) > _LARGE else _read(*arguments)
            job = await service.predict(model, call.photos, request.scope.get(CONNECTION))
        said: list[Prediction] = []
        for outcome in job.settled():
            if isinstance(outcome, Refusal):
                raise outcome  # a tensor has no place for an error
            said.append(outcome)
        answer = {"model_name": model.name, "outputs": [_output(name, model, said) for name in call.outputs]}
        return json_response(answer if call.id is None else {**answer, "id": call.id})

    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    of_model = {"parameters": [name]}
    codes = ("bad_request", "timeout", "too_large", "too_many_photos", "not_an_image", "bomb", "damaged", "overloaded")

    def add(
        path: str, endpoint: Any, answer: type[BaseModel], *codes: str, extra: Any = None, method: str = "GET"
    ) -> None:
        described = schemas.errors(*codes, model=V2Error)
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            response_model=answer,
            responses=described,
            openapi_extra=extra,
            tags=["v2"],
        )

    add("/v2", server, ServerMetadata)
    add("/v2/health/live", live, Live)
    add("/v2/health/ready", ready, Ready, "draining")
    add("/v2/models/{name}", metadata, ModelMetadata, "unknown_model", extra=of_model)
    add("/v2/models/{name}/ready", model_ready, ModelReady, "unknown_model", "draining", extra=of_model)
    schema = {"schema": {"$ref": "#/components/schemas/InferBody"}}
    of_call = {**of_model, "requestBody": {"required": True, "content": {"application/json": schema}}}
    add(
        "/v2/models/{name}/infer", infer, InferAnswer, "unknown_model", "draining", *codes, extra=of_call, method="POST"
    )


class _Call:
    """A checked inference: its photos, and the names of the outputs that are wanted."""

    def __init__(self, photos: Sequence[bytes] | Sequence[Pixels], outputs: list[str], identity: str | None) -> None:
        self.photos, self.outputs, self.id = photos, outputs, identity


def _read(body: bytes, model: Model, limits: Limits) -> _Call:
    content = parsed_json(body)
    if not isinstance(content, dict):
        raise Refusal("bad_request", "The body is not a JSON object.")
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refusal("bad_request", "inputs: expected a list of one tensor, pixels or photos.")
    identity = content.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Refusal("bad_request", "id: expected a string.")
    outputs = _wanted(content.get("outputs"), model)
    if _is_binary(content) or _is_binary(inputs[0]):
        raise Refusal("bad_request", _NO_BINARY)
    name = inputs[0].get("name")
    if name == "pixels":
        return _Call(_pixels(inputs[0], limits), outputs, identity)
    if name == "photos":
        return _Call(_files(inputs[0], limits), outputs, identity)
    raise Refusal("bad_request", "inputs[0].name: expected pixels or photos.")


def _wanted(outputs: Any, model: Model) -> list[str]:
    known = [output["name"] for output in _described(model)["outputs"]]
    if outputs is None or outputs == []:
        return known
    names: list[str] = []
    for output in outputs if isinstance(outputs, list) else [None]:
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(output, dict) or not isinstance(name, str) or name not in known:
            raise Refusal("bad_request", f"outputs: expected a list of objects with a name of {', '.join(known)}.")
        if _is_binary(output):
            raise Refusal("bad_request", _NO_BINARY)
        names.append(name)
    return names


def _is_binary(part: dict[str, Any]) -> bool:
    parameters = part.get("parameters")
    return isinstance(parameters, dict) and any(
        parameters.get(name) not in (None, False) for name in ("binary_data", "binary_data_size", "binary_data_output")
    )


def _shape(tensor: dict[str, Any], datatype: str, rank: int, like: str, limits: Limits) -> list[int]:
    shape, name = tensor.get("shape"), tensor["name"]
    if tensor.get("datatype") != datatype:
        raise Refusal("bad_request", f"{name}.datatype: expected {datatype}.")
    whole = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
    if not isinstance(shape, list) or not whole or len(shape) != rank:
        raise Refusal("bad_request", f"{name}.shape: expected {like} of whole numbers above 0.")
    if shape[0] > limits.max_photos:
        raise too_many_photos(limits)
    return shape


def _files(tensor: dict[str, Any], limits: Limits) -> list[bytes]:
    (count,) = _shape(tensor, "BYTES", 1, "[n]", limits)
    data = tensor.get("data")
    if not isinstance(data, list) or len(data) != count:
        raise Refusal("bad_request", f"photos.data: expected a list of {count} strings of base64, as its shape says.")
    return [from_base64(text, f"photos.data[{number}]") for number, text in enumerate(data)]


def _pixels(tensor: dict[str, Any], limits: Limits) -> list[Pixels]:
    shape = _shape(tensor, "UINT8", 4, "[n, height, width, 3]", limits)
    if shape[3] != 3:
        raise Refusal("bad_request", "pixels.shape: expected [n, height, width, 3]: RGB, channels last.")
    if shape[1] * shape[2] > limits.max_pixels:
        raise Refusal("bomb", f"pixels: images of {shape[1]} x {shape[2]}; at most {limits.max_pixels:,} pixels.")
    wrong = Refusal(
        "bad_request", f"pixels.data: expected {math.prod(shape)} whole numbers of 0 to 255, as its shape says."
    )
    try:
        values = np.array(tensor.get("data"))
    except (ValueError, TypeError, OverflowError):
        raise wrong from None
    if values.dtype.kind not in "iu" or values.size != math.prod(shape) or values.min() < 0 or values.max() > 255:
        raise wrong
    return list(values.astype(np.uint8).reshape(shape))


def _described(model: Model) -> dict[str, Any]:
    classes = len(model.classifier.class_names)
    outputs = [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]
    if model.classifier.rejection is not None:
        outputs.append({"name": "accepted", "datatype": "BOOL", "shape": [-1]})
    return {
        "name": model.name,
        "versions": [],
        "platform": "headstart_classifier",
        "inputs": [
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
            {"name": "photos", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": outputs,
    }


def _output(name: str, model: Model, said: list[Prediction]) -> dict[str, Any]:
    probabilities = np.stack([np.asarray(prediction.probabilities) for prediction in said])
    if name == "probabilities":
        return _tensor(name, "FP32", list(probabilities.shape), probabilities.ravel().tolist())
    if name == "label":
        labels = [model.classifier.class_names[index] for index in probabilities.argmax(axis=1)]
        return _tensor(name, "BYTES", [len(said)], labels)
    return _tensor(name, "BOOL", [len(said)], [prediction.accepted for prediction in said])


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}
