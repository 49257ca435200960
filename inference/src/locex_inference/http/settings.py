"""Routes of the trace and logging extensions: settings that a client may read and change."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from locex.web.routes import Routes, Scope
from locex_inference.controls import Controls, Trace
from locex_inference.errors import InvalidInference
from locex_inference.http.bodies import read_object
from locex_inference.http.keys import CONTROLS, SERVING
from locex_inference.http.models import NAMES, TAG, json

_BODY = {"application/json": {"type": "object"}}

routes = Routes()


@routes.get("/v2/trace/setting", tag=TAG, response=dict[str, Any])
@routes.get("/v2/models/{model}/trace/setting", tag=TAG, parameters=NAMES, response=dict[str, Any])
async def get_trace(request: web.Request, model: str = "") -> web.Response:
    """Return what is traced, in general or of one model."""
    return json(_told(_controls(request, model).trace(model)))


@routes.post("/v2/trace/setting", tag=TAG, scope=Scope.ADMIN, consumes=_BODY, response=dict[str, Any])
@routes.post(
    "/v2/models/{model}/trace/setting",
    tag=TAG,
    scope=Scope.ADMIN,
    parameters=NAMES,
    consumes=_BODY,
    response=dict[str, Any],
)
async def post_trace(request: web.Request, model: str = "") -> web.Response:
    """Change what is traced; null goes back to the more general value."""
    controls = _controls(request, model)
    changes = {name: _values(name, value) for name, value in (await read_object(request)).items()}
    return json(_told(controls.set_trace(changes, model)))


@routes.get("/v2/logging", tag=TAG, response=dict[str, Any])
async def get_log(request: web.Request) -> web.Response:
    """Return the log settings."""
    return json(request.app[CONTROLS].log())


@routes.post("/v2/logging", tag=TAG, scope=Scope.ADMIN, consumes=_BODY, response=dict[str, Any])
async def post_log(request: web.Request) -> web.Response:
    """Change log settings."""
    return json(request.app[CONTROLS].set_log(await read_object(request)))


def _controls(request: web.Request, model: str) -> Controls:
    """Return the controls; raise `UnknownServed` for a model that is not there."""
    if model:
        request.app[SERVING].metadata(model)
    return request.app[CONTROLS]


def _values(name: str, value: Any) -> list[str] | None:
    """Return a trace setting as the controls take it: clients send a text, a number, a list or null."""
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, bool) or not isinstance(each, str | int) for each in values):
        raise InvalidInference(f"{value!r} is no value of the trace setting {name!r}")
    return [str(each) for each in values]


def _told(trace: Trace) -> dict[str, Any]:
    """Return trace settings as the protocol writes them on HTTP: the level is a list, the others are texts."""
    return {name: values if name == "trace_level" else values[0] for name, values in trace.items()}
