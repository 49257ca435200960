"""Routes of the model repository extension: index, load with configuration and files, unload."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson
from aiohttp import web

from locex.web.routes import Routes, Scope
from locex_inference.errors import InvalidInference
from locex_inference.http.bodies import read_object
from locex_inference.http.keys import MODEL_LIMIT, SERVING
from locex_inference.http.models import NAMES, TAG, json

_BODY = {"application/json": {"type": "object"}}
_FILE = "file:"

routes = Routes()


@routes.post("/v2/repository/index", tag=TAG, scope=Scope.READ, consumes=_BODY, response=list[dict[str, str]])
async def post_index(request: web.Request) -> web.Response:
    """Return every known version of every model; ``{"ready": true}`` leaves out those that are not."""
    given = await read_object(request)
    ready = given.get("ready", False)
    if not isinstance(ready, bool):
        raise InvalidInference(f"ready is true or false, not {ready!r}")
    entries = request.app[SERVING].index(ready_only=ready)
    return json(
        [
            {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
            for entry in entries
        ],
    )


@routes.post(
    "/v2/repository/models/{model}/load",
    tag=TAG,
    scope=Scope.ADMIN,
    parameters=NAMES,
    consumes=_BODY,
    response=dict[str, Any],
)
async def post_load(request: web.Request, model: str) -> web.Response:
    """Load a model, or load it anew: with ``config`` (JSON text) and ``file:PATH`` (base64) in its parameters.

    Answers when the model is served.
    """
    parameters = _parameters(await read_object(request, request.app[MODEL_LIMIT]))
    config = _config(parameters.get("config"))
    files = {
        name.removeprefix(_FILE): _content(name, value) for name, value in parameters.items() if name.startswith(_FILE)
    }
    await request.app[SERVING].load(model, config, files)
    return json({})


@routes.post(
    "/v2/repository/models/{model}/unload",
    tag=TAG,
    scope=Scope.ADMIN,
    parameters=NAMES,
    consumes=_BODY,
    response=dict[str, Any],
)
async def post_unload(request: web.Request, model: str) -> web.Response:
    """Serve a model no longer; requests under way are answered."""
    _parameters(await read_object(request))
    await request.app[SERVING].unload(model)
    return json({})


def _parameters(given: dict[str, Any]) -> dict[str, Any]:
    parameters = given.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidInference("the parameters are no JSON object")
    return parameters


def _config(given: Any) -> dict[str, Any] | None:
    """Return the configuration: JSON in a text, as Triton's clients send it, or an object."""
    if given is None:
        return None
    try:
        config = orjson.loads(given) if isinstance(given, str) else given
    except orjson.JSONDecodeError as error:
        raise InvalidInference(f"the config is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise InvalidInference("the config is no JSON object")
    return config


def _content(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise InvalidInference(f"{name!r} is no base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInference(f"{name!r} is no base64 text: {error}") from None
