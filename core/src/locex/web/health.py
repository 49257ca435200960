"""Liveness (``/healthz``: the loop runs) and readiness (``/readyz``: every check passes)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from locex.errors import LocexError
from locex.web.endpoint import json_response
from locex.web.routes import Routes

Check = Callable[[], Awaitable[None]]

PATIENCE = 2.0
"""Seconds that one check may take."""


class Readiness:
    """Named checks; one passes by returning and fails by raising."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Add a check."""
        self._checks[name] = check

    async def results(self) -> dict[str, str]:
        """Run all checks at once; return ``ok`` or an error code by name."""
        outcomes = await asyncio.gather(*(_outcome(check) for check in self._checks.values()))
        return dict(zip(self._checks, outcomes, strict=True))


async def _outcome(check: Check) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            await check()
    except LocexError as error:
        return error.error_code
    except TimeoutError:
        return "timed out"
    except Exception:  # noqa: BLE001 -- anything that a check raises means "not ready"; strangers learn no more
        return "failed"
    return "ok"


READINESS: web.AppKey[Readiness] = web.AppKey("readiness", Readiness)

routes = Routes()


@routes.get("/healthz", tag="service", scope=None, response=dict[str, str])
async def healthz(request: web.Request) -> dict[str, str]:  # noqa: ARG001 -- a handler's shape
    """Tell that the service is alive."""
    return {"status": "ok"}


@routes.get("/readyz", tag="service", scope=None, response=dict[str, Any])
async def readyz(request: web.Request) -> web.Response:
    """Tell whether the service can work, check by check; 503 where one fails."""
    checks = await request.app[READINESS].results()
    ready = all(outcome == "ok" for outcome in checks.values())
    return json_response({"status": "ready" if ready else "not ready", "checks": checks}, status=200 if ready else 503)
