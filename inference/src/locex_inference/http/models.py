"""Routes about the server and its models: health, metadata, configuration, statistics, infer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version as version_of
from typing import Any

import orjson
from aiohttp import web

from locex.api import TensorInfo
from locex.web.routes import Routes, Scope
from locex_inference.errors import NotReady
from locex_inference.http.bodies import read_body
from locex_inference.http.infer import Reply
from locex_inference.http.keys import INFERENCE, SERVING
from locex_inference.serving import EXTENSIONS, NAME, Duration, ServedModel, Statistics

TAG = "Open Inference Protocol"
NAMES = {"model": str, "version": str}

routes = Routes()


def json(content: Any, status: int = HTTPStatus.OK) -> web.Response:
    """Return JSON as a response."""
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")


@routes.get("/v2", tag=TAG, response=dict[str, Any])
async def get_server(request: web.Request) -> web.Response:  # noqa: ARG001 -- a handler's shape
    """Return the server's name, version and extensions."""
    return json({"name": NAME, "version": version_of("locex-inference"), "extensions": list(EXTENSIONS)})


@routes.get("/v2/health/live", tag=TAG, scope=None, response=dict[str, bool])
async def get_live(request: web.Request) -> web.Response:
    """Tell whether the server is alive."""
    live = request.app[SERVING].live()
    return json({"live": live}, HTTPStatus.OK if live else HTTPStatus.SERVICE_UNAVAILABLE)


@routes.get("/v2/health/ready", tag=TAG, scope=None, response=dict[str, bool])
async def get_ready(request: web.Request) -> web.Response:
    """Tell whether every model that must be served is."""
    ready = request.app[SERVING].ready()
    return json({"ready": ready}, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)


@routes.get("/v2/models/stats", tag=TAG, response=dict[str, Any])
async def get_all_statistics(request: web.Request) -> web.Response:
    """Return the statistics of every version."""
    return json({"model_stats": [_statistics(each) for each in request.app[SERVING].statistics()]})


@routes.get("/v2/models/{model}/stats", tag=TAG, parameters=NAMES, response=dict[str, Any])
@routes.get("/v2/models/{model}/versions/{version}/stats", tag=TAG, parameters=NAMES, response=dict[str, Any])
async def get_statistics(request: web.Request, model: str, version: str = "") -> web.Response:
    """Return the statistics of a model's versions, or of one."""
    found = request.app[SERVING].statistics(model, version)
    return json({"model_stats": [_statistics(each) for each in found]})


@routes.get("/v2/models/{model}", tag=TAG, parameters=NAMES, response=dict[str, Any])
@routes.get("/v2/models/{model}/versions/{version}", tag=TAG, parameters=NAMES, response=dict[str, Any])
async def get_metadata(request: web.Request, model: str, version: str = "") -> web.Response:
    """Return what a model takes and gives."""
    return json(_metadata(request.app[SERVING].metadata(model, version)))


@routes.get("/v2/models/{model}/ready", tag=TAG, parameters=NAMES, response=dict[str, Any])
@routes.get("/v2/models/{model}/versions/{version}/ready", tag=TAG, parameters=NAMES, response=dict[str, Any])
async def get_model_ready(request: web.Request, model: str, version: str = "") -> web.Response:
    """Tell whether a model, or a version of it, answers."""
    if not request.app[SERVING].model_ready(model, version):
        raise NotReady(f"{model!r}" + (f" version {version!r}" if version else "") + " is not ready")
    return json({"name": model, "ready": True})


@routes.get("/v2/models/{model}/config", tag=TAG, parameters=NAMES, response=dict[str, Any])
@routes.get("/v2/models/{model}/versions/{version}/config", tag=TAG, parameters=NAMES, response=dict[str, Any])
async def get_configuration(request: web.Request, model: str, version: str = "") -> web.Response:
    """Return a model's configuration as Triton's clients read it."""
    return json(request.app[SERVING].configuration(model, version))


_BODY = {"application/json": {"type": "object"}, "application/octet-stream": {}}
_PATH = "/v2/models/{model}/infer"
_VERSIONED = "/v2/models/{model}/versions/{version}/infer"


@routes.post(_PATH, tag=TAG, scope=Scope.RUN, parameters=NAMES, consumes=_BODY, response=dict[str, Any])
@routes.post(_VERSIONED, tag=TAG, scope=Scope.RUN, parameters=NAMES, consumes=_BODY, response=dict[str, Any])
async def post_infer(request: web.Request, model: str, version: str = "") -> web.Response:
    """Run a model on the tensors of the body: JSON, or JSON and bytes (binary tensor data extension)."""
    inference = request.app[INFERENCE]
    headers = {name.lower(): value for name, value in request.headers.items()}
    arrival = inference.arrive(model, version, request.path, headers, request.remote or "")
    response, fault = None, None
    try:
        asked = inference.decode(arrival, await read_body(request, inference.body_limit))
        response = inference.serving.infer_now(asked) or await inference.serving.infer(asked)
        reply = inference.answer(arrival, response)
    except Exception as error:  # noqa: BLE001 -- every error is told in the protocol's form
        fault, reply = error, inference.refuse(error)
    inference.settle(arrival, reply, response, fault)
    return _written(reply)


def _written(reply: Reply) -> web.Response:
    body = reply.parts[0] if len(reply.parts) == 1 else b"".join(reply.parts)
    return web.Response(body=bytes(body), status=reply.status, headers=reply.headers)


def _tensors(infos: Iterable[TensorInfo]) -> list[dict[str, Any]]:
    return [{"name": info.name, "datatype": info.datatype, "shape": list(info.shape)} for info in infos]


def _metadata(model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "versions": list(model.versions),
        "platform": model.platform,
        "inputs": _tensors(model.inputs),
        "outputs": _tensors(model.outputs),
    }


def _statistics(found: Statistics) -> dict[str, Any]:
    phases = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    return {
        "name": found.name,
        "version": found.version,
        "last_inference": found.last,
        "inference_count": found.inferences,
        "execution_count": found.executions,
        "inference_stats": {phase: _duration(getattr(found, phase)) for phase in phases},
        "batch_stats": [
            {"batch_size": size, "compute_infer": _duration(took)} for size, took in sorted(found.batches.items())
        ],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return dataclasses.asdict(duration)
