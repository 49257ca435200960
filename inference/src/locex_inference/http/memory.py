"""Routes of the system shared memory extension, and the clean refusal of CUDA's.

To register asks for the scope admin: the service opens the object with its own rights, so whoever may register could
read and write every object of the service's user.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from locex.web.routes import Routes, Scope
from locex_inference.http.bodies import read_object
from locex_inference.http.keys import MEMORY
from locex_inference.http.models import TAG, json
from locex_inference.shared_memory import refuse_cuda

_BODY = {"application/json": {"type": "object"}}
_NAMES = {"region": str}

routes = Routes()


@routes.get("/v2/systemsharedmemory/status", tag=TAG, response=list[dict[str, Any]])
@routes.get("/v2/systemsharedmemory/region/{region}/status", tag=TAG, parameters=_NAMES, response=list[dict[str, Any]])
async def get_status(request: web.Request, region: str = "") -> web.Response:
    """Return the registered regions, or one."""
    regions = request.app[MEMORY].status(region)
    return json(
        [{"name": each.name, "key": each.key, "offset": each.offset, "byte_size": each.byte_size} for each in regions],
    )


@routes.post(
    "/v2/systemsharedmemory/region/{region}/register",
    tag=TAG,
    scope=Scope.ADMIN,
    parameters=_NAMES,
    consumes=_BODY,
    response=dict[str, Any],
)
async def post_register(request: web.Request, region: str) -> web.Response:
    """Register a shared memory object of the client's: ``key``, ``offset``, ``byte_size``."""
    given = await read_object(request)
    request.app[MEMORY].register(region, given.get("key", ""), given.get("offset", 0), given.get("byte_size", 0))
    return json({})


@routes.post("/v2/systemsharedmemory/unregister", tag=TAG, scope=Scope.ADMIN, consumes=_BODY, response=dict[str, Any])
@routes.post(
    "/v2/systemsharedmemory/region/{region}/unregister",
    tag=TAG,
    scope=Scope.ADMIN,
    parameters=_NAMES,
    consumes=_BODY,
    response=dict[str, Any],
)
async def post_unregister(request: web.Request, region: str = "") -> web.Response:
    """Let go of a region, or of all."""
    request.app[MEMORY].unregister(region)
    return json({})


@routes.get("/v2/cudasharedmemory/status", tag=TAG, response=list[dict[str, Any]])
@routes.get("/v2/cudasharedmemory/region/{region}/status", tag=TAG, parameters=_NAMES, response=list[dict[str, Any]])
async def get_cuda_status(request: web.Request, region: str = "") -> web.Response:  # noqa: ARG001 -- a handler's shape
    """Return no region: there are none in CUDA's memory."""
    if region:
        raise refuse_cuda()
    return json([])


@routes.post(
    "/v2/cudasharedmemory/region/{region}/register",
    tag=TAG,
    scope=Scope.ADMIN,
    parameters=_NAMES,
    consumes=_BODY,
    response=dict[str, Any],
)
async def post_cuda(request: web.Request, region: str) -> web.Response:  # noqa: ARG001 -- a handler's shape
    """Refuse: CUDA's memory is not supported."""
    raise refuse_cuda()


@routes.post("/v2/cudasharedmemory/unregister", tag=TAG, scope=Scope.ADMIN, consumes=_BODY, response=dict[str, Any])
@routes.post(
    "/v2/cudasharedmemory/region/{region}/unregister",
    tag=TAG,
    scope=Scope.ADMIN,
    parameters=_NAMES,
    consumes=_BODY,
    response=dict[str, Any],
)
async def post_cuda_unregister(request: web.Request, region: str = "") -> web.Response:  # noqa: ARG001 -- as above
    """Do nothing: what was never registered is gone."""
    return json({})
