"""The application of a service: its routes with everything around them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from locex.web import auth, docs, health, metrics, openapi, sse
from locex.web.endpoint import endpoint
from locex.web.lookup import BY_HANDLER
from locex.web.problems import UnsupportedMedia, problems
from locex.web.routes import Route, Routes

BODY_LIMIT = 1 << 20
"""Bytes of a JSON body."""


def create_app(
    routes: Sequence[Routes],
    *,
    title: str,
    version: str,
    description: str = "",
    access: auth.Access,
    extension: openapi.Extension | None = None,
    body_limit: int = BODY_LIMIT,
    failures: Middleware = problems,
    encoded_bodies: bool = False,
) -> web.Application:
    """Return an application with the service's routes, documentation, health, metrics and protection.

    Services add state by typed keys and lifetimes to ``app.cleanup_ctx``, checks to ``app[READINESS]``, gauges to
    ``app[METRICS].registry``. ``failures`` turns what handlers raise into answers. With ``encoded_bodies`` handlers
    may be called with a compressed body; they bound what comes out.
    """
    every = [*itertools.chain(*routes, health.routes, metrics.routes, openapi.routes, docs.routes)]
    app = web.Application(
        client_max_size=body_limit,
        middlewares=[metrics.measure, failures, auth.authenticate],
    )
    if not encoded_bodies:
        app.middlewares.append(_refuse_encoded_bodies)
    info = {"title": title, "version": version, "description": description}
    app[BY_HANDLER] = {}
    app[auth.ACCESS] = access
    app[health.READINESS] = health.Readiness()
    app[metrics.METRICS] = metrics.Metrics()
    app[openapi.DOCUMENT] = openapi.Document(every, info, extension)
    app[sse.STOPPING] = asyncio.Event()
    for route in every:
        _register(app, route)
    app.on_shutdown.append(_end_streams)
    app.on_response_prepare.append(_secure)
    return app


def _register(app: web.Application, route: Route) -> None:
    handler = endpoint(route)
    app[BY_HANDLER][handler] = route
    for path in route.spellings:
        app.router.add_route(route.method, path, handler)
        if route.method == hdrs.METH_GET and "response" in route.options:
            app.router.add_route(hdrs.METH_HEAD, path, handler)


@web.middleware
async def _refuse_encoded_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMedia(f"bodies encoded as {encoding} are not taken", remedy="send the body as it is")
    return await handler(request)


async def _end_streams(app: web.Application) -> None:
    app[sse.STOPPING].set()


async def _secure(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers[hdrs.SERVER] = "locex"
