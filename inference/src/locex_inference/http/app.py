"""The HTTP application: the protocol's routes with core's documentation, health, metrics and protection."""

from __future__ import annotations

from importlib.metadata import version

from aiohttp import web

from locex.web.app import create_app
from locex.web.auth import Access
from locex_inference.following import routes as following
from locex_inference.http import memory, models, repository, settings, versions
from locex_inference.http.connections import CONNECTIONS, give_back
from locex_inference.http.errors import failures

DESCRIPTION = """Serves models with the Open Inference Protocol, version 2, and Triton's extensions of it.

Errors on its paths are `{"error": …}`; `code` is stable."""


def make_app(access: Access, body_limit: int) -> web.Application:
    """Return the application without what it serves: `locex_inference.service` fills its keys when it starts."""
    app = create_app(
        [models.routes, repository.routes, memory.routes, settings.routes, versions.routes, following.routes],
        title="locex inference",
        version=version("locex-inference"),
        description=DESCRIPTION,
        access=access,
        body_limit=body_limit,
        failures=failures,
        encoded_bodies=True,
    )
    app[CONNECTIONS] = []
    app.middlewares.insert(0, give_back)
    return app
