"""Routes about which version of a model answers: labels, canaries, promotion, rollback. They are ours, not Triton's."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import Field

from locex.schemas.base import Configuration, validate
from locex.schemas.model import Name
from locex.web.routes import Routes, Scope
from locex_inference.http.bodies import read_object
from locex_inference.http.keys import REGISTRY
from locex_inference.http.models import NAMES, TAG, json
from locex_inference.models.options import Weight
from locex_inference.models.registry import LATEST

_BODY = {"application/json": {"type": "object"}}

routes = Routes()


class Chosen(Configuration):
    """A version to promote."""

    version: Name = Field(default=LATEST, description="A loaded version, or a label.")


class Labels(Configuration):
    """Further names of a model's versions, in place of those it had."""

    labels: dict[Name, Name] = Field(description="Versions by label.")


class Canary(Configuration):
    """Parts of the requests that name no version, in place of those before; the rest goes to the stable version."""

    weights: dict[Name, Weight] = Field(description="Parts by version or label, at most 1 in all.")


@routes.get("/v2/models/{model}/labels", tag=TAG, parameters=NAMES, response=dict[str, Any])
async def get_labels(request: web.Request, model: str) -> web.Response:
    """Return the version behind every label of a model, and the parts that canaries get."""
    return _told(request, model)


@routes.put(
    "/v2/models/{model}/labels",
    tag=TAG,
    scope=Scope.ADMIN,
    parameters=NAMES,
    consumes=_BODY,
    response=dict[str, Any],
)
async def put_labels(request: web.Request, model: str) -> web.Response:
    """Give a model's versions further names."""
    given = validate(Labels, await read_object(request))
    request.app[REGISTRY].set_labels(model, given.labels)
    return _told(request, model)


@routes.put(
    "/v2/models/{model}/canary",
    tag=TAG,
    scope=Scope.ADMIN,
    parameters=NAMES,
    consumes=_BODY,
    response=dict[str, Any],
)
async def put_canary(request: web.Request, model: str) -> web.Response:
    """Send parts of the requests that name no version to other versions than the stable one."""
    given = validate(Canary, await read_object(request))
    request.app[REGISTRY].set_weights(model, given.weights)
    return _told(request, model)


@routes.post(
    "/v2/models/{model}/promote",
    tag=TAG,
    scope=Scope.ADMIN,
    parameters=NAMES,
    consumes=_BODY,
    response=dict[str, Any],
)
async def post_promote(request: web.Request, model: str) -> web.Response:
    """Make a loaded version the stable one; without a ``version``, the latest."""
    given = validate(Chosen, await read_object(request))
    request.app[REGISTRY].promote(model, given.version)
    return _told(request, model)


@routes.post(
    "/v2/models/{model}/rollback", tag=TAG, scope=Scope.ADMIN, parameters=NAMES, consumes=_BODY, response=dict[str, Any]
)
async def post_rollback(request: web.Request, model: str) -> web.Response:
    """Make the version stable that was it before."""
    request.app[REGISTRY].rollback(model)
    return _told(request, model)


def _told(request: web.Request, model: str) -> web.Response:
    registry = request.app[REGISTRY]
    return json({"name": model, "labels": registry.labels(model), "canary": registry.weights(model)})
