"""From a request to its typed route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from locex.web.routes import Route

BY_HANDLER: web.AppKey[dict[Callable[..., Any], Route]] = web.AppKey("routes by aiohttp handler", dict)


def route_of(request: web.Request) -> Route | None:
    """Return the route that a request met; None where no path or method fits."""
    return request.app[BY_HANDLER].get(request.match_info.handler)
