"""The routes of /v1, of health and metrics, and of the page."""

from __future__ import annotations

import mimetypes
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import numpy as np
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from headstart import __version__
from headstart.serve import schemas
from headstart.serve.batching import Outcome
from headstart.serve.bodies import Photo, is_costly, photos_of, read_body
from headstart.serve.errors import CLIENT_LEFT, INTERNAL, ClientLeft, Refusal, error_response, json_response
from headstart.serve.gate import Endpoint, Gate
from headstart.serve.metrics import CONTENT_TYPE
from headstart.serve.protocol import CONNECTION
from headstart.serve.service import Model, Service
from headstart.serve.v2 import add_v2

PAGE = Path(__file__).parent / "page"
_BODY_CODES = ("bad_request", "no_photos", "timeout", "too_large", "too_many_photos", "unsupported_media_type")
_WORK_CODES = (*_BODY_CODES, "unknown_model", "not_an_image", "bomb", "damaged", "overloaded", "draining")


def make_app(service: Service, token: str | None = None, log_requests: Any = None) -> Gate:
    """Return the ASGI application.

    Args:
        service: the models behind it.
        token: what clients have to show; None for nothing.
        log_requests: prints one line for each request; None for none.
    """
    app = FastAPI(
        title="Headstart",
        version=__version__,
        description="Image classifiers behind HTTP. Where the server has a token, every route below wants it.",
        docs_url=None,  # FastAPI's pages load their scripts from another host
        redoc_url=None,
        exception_handlers={HTTPException: _http_error, Refusal: _refused, ClientLeft: _left, Exception: _failed},
        redirect_slashes=False,
    )
    predict = _add_v1(app, service)
    _add_health(app, service)
    add_v2(app, service)
    app.add_api_route("/", _page, methods=["GET"], include_in_schema=False)
    # By this table, not by the system's, which may call scripts plain text: browsers would not run them.
    mimetypes.add_type("text/javascript", ".js")
    app.mount("/static", StaticFiles(directory=PAGE), "static")
    return Gate(app, service.metrics, token, log_requests, {("POST", "/v1/predict"): predict})


def _add_v1(app: FastAPI, service: Service) -> Endpoint:
    """Add the routes of /v1 and return the one that is asked most."""

    async def models(request: Request) -> Response:
        """List the classifiers, the default one first, and what a request may hold."""
        limits = service.limits
        return json_response(
            {
                "models": [model.described() for model in service.models.values()],
                "limits": {
                    "max_photos": limits.max_photos,
                    "max_body_bytes": limits.max_body,
                    "max_pixels": limits.max_pixels,
                },
            }
        )

    async def predict(request: Request) -> Response:
        """Classify photos: a row for each, in the order given.

        A photo that cannot be read is a row with its error as long as another one of the request can be read.
        """
        query = _query(request)
        model, top_k = service.model(query.get("model")), _top_k(query)
        with service.bodies.room() as take, service.work():
            photos = await _photos(request, service, take)
            job = await service.predict(model, [photo.data for photo in photos], request.scope.get(CONNECTION))
        return json_response({"model": model.name, "predictions": _rows(model, photos, job.settled(), top_k)})

    async def explain(request: Request) -> Response:
        """Draw where the network looks: its view of one photo with Grad-CAM laid over it.

        The header X-Label holds the label, percent-encoded.
        """
        query = _query(request)
        model = service.model(query.get("model"))
        class_names = model.classifier.class_names
        if "label" in query and query["label"] not in class_names:
            raise Refusal("unknown_label", f"The model {model.name} has no class of the name given.")
        with service.bodies.room() as take, service.work():
            photos = await _photos(request, service, take)
            if len(photos) > 1:
                raise Refusal("bad_request", f"There are {len(photos)} photos in the request; expected one.")
            job = await service.predict(model, [photos[0].data], request.scope.get(CONNECTION), keeps_views=True)
            (row,) = _rows(model, photos, job.settled(), 1)
            label = query.get("label", row["label"])
            picture = await service.explain(model, job.views[0], class_names.index(label))
        return Response(picture, media_type="image/png", headers={"X-Label": quote(label, "", errors="replace")})

    app.add_api_route(
        "/v1/models", models, methods=["GET"], response_model=schemas.ModelsAnswer, responses=schemas.errors()
    )
    app.add_api_route(
        "/v1/predict",
        predict,
        methods=["POST"],
        response_model=schemas.PredictAnswer,
        responses=schemas.errors(*_WORK_CODES),
        openapi_extra={
            "requestBody": schemas.PHOTOS_IN,
            "parameters": [schemas.MODEL_PARAMETER, schemas.TOP_K_PARAMETER],
        },
    )
    app.add_api_route(
        "/v1/explain",
        explain,
        methods=["POST"],
        response_class=Response,
        responses={
            **schemas.errors(*_WORK_CODES, "unknown_label"),
            200: {
                "description": "The picture.",
                "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
                "headers": {"X-Label": {"schema": {"type": "string"}, "description": "Percent-encoded."}},
            },
        },
        openapi_extra={
            "requestBody": schemas.PHOTOS_IN,
            "parameters": [schemas.MODEL_PARAMETER, schemas.LABEL_PARAMETER],
        },
    )
    return predict


def _add_health(app: FastAPI, service: Service) -> None:
    async def healthz(request: Request) -> Response:
        """Say that the process lives."""
        return json_response({"status": "ok"})

    async def readyz(request: Request) -> Response:
        """Say whether the server takes work."""
        service.check_ready()
        return json_response({"status": "ready"})

    async def metrics(request: Request) -> Response:
        """Return the counters in Prometheus's text format."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    app.add_api_route("/healthz", healthz, methods=["GET"], response_model=schemas.Status)
    app.add_api_route(
        "/readyz", readyz, methods=["GET"], response_model=schemas.Status, responses=schemas.errors("draining")
    )
    described = {**schemas.errors(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    app.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response, responses=described)


async def _photos(request: Request, service: Service, take: Any) -> list[Photo]:
    started = time.perf_counter()
    body = await read_body(request.receive, request.headers.get("content-length"), take, service.limits)
    service.metrics.receiving.observe(time.perf_counter() - started)
    content_type = request.headers.get("content-type", "")
    if is_costly(content_type, body):
        return await service.aside(photos_of, content_type, body, service.limits)
    return photos_of(content_type, body, service.limits)


def _rows(model: Model, photos: list[Photo], outcomes: list[Outcome], top_k: int) -> list[dict[str, Any]]:
    failed = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    if len(failed) == len(outcomes):
        raise failed[0]
    names = model.classifier.class_names
    rows: list[dict[str, Any]] = []
    for photo, outcome in zip(photos, outcomes, strict=True):
        if isinstance(outcome, Refusal):
            rows.append({"name": photo.name, "error": outcome.told()})
            continue
        probabilities = np.asarray(outcome.probabilities)
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        top = [{"label": names[i], "probability": float(probabilities[i])} for i in order]
        rows.append({"name": photo.name, **top[0], "accepted": outcome.accepted, "top": top})
    return rows


def _query(request: Request) -> dict[str, str]:
    text = request.scope["query_string"]
    if not text:
        return {}
    try:
        return {name: values[-1] for name, values in parse_qs(text.decode("utf-8"), True, errors="strict").items()}
    except ValueError:
        raise Refusal("bad_request", "The query is malformed.") from None


def _top_k(query: dict[str, str]) -> int:
    text = query.get("top_k", "5")
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < 1:
        raise Refusal("bad_request", "The query's top_k is wrong; expected a whole number of 1 or more.")
    return int(text)


async def _page(request: Request) -> Response:
    return FileResponse(PAGE / "index.html", media_type="text/html")


async def _refused(request: Request, refusal: Any) -> Response:
    return error_response(refusal, request.scope["path"])


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)  # for the counters alone


async def _failed(request: Request, error: Exception) -> Response:
    return error_response(Refusal("internal", INTERNAL), request.scope["path"])


async def _http_error(request: Request, error: Any) -> Response:
    """Give Starlette's own errors our form."""
    if error.status_code == 405:
        refusal = Refusal(
            "method_not_allowed",
            f"This address takes {(error.headers or {}).get('Allow', 'other methods')}.",
            error.headers or {},
        )
    elif error.status_code == 404:
        refusal = Refusal("not_found", "There is nothing at this address.")
    else:
        refusal = Refusal("bad_request", "The request is malformed.")
    return error_response(refusal, request.scope["path"])
