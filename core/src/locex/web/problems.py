"""Errors as RFC 9457 problem details (``application/problem+json``), and the HTTP status of every error code."""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import ClientPayloadError, hdrs, web
from aiohttp.typedefs import Handler

from locex.errors import LocexError
from locex.web.lookup import route_of

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"

STATUS: Mapping[str, int] = {
    "body-malformed": 400,
    "request-invalid": 422,
    "media-type-unsupported": 415,
    "configuration-invalid": 422,
    "plugin-unknown": 422,
    "plugin-duplicate": 409,
    "plugin-incompatible": 409,
    "plugin-refused": 403,
    "plugin-broken": 424,
    "plugin-crashed": 424,
    "job-unknown": 404,
    "job-active": 409,
    "queue-full": 429,
    "model-unknown": 404,
    "model-duplicate": 409,
    "model-invalid": 422,
    "repository-unavailable": 503,
    "format-mismatch": 422,
    "step-failed": 422,
    "data-unavailable": 503,
    "parameters-refused": 422,
    "privacy-refused": 409,
    "policy-refused": 403,
    "pipeline-unsaved": 422,
    "federation-lost": 502,
    "server-refused": 403,
    "store-unavailable": 503,
    "interpreter-unavailable": 503,
    "unauthorized": 401,
    "forbidden": 403,
    "too-large": 413,
    "internal": 500,
}
"""By code. A route may say otherwise (`RouteOptions.statuses`): a model that a *job* names is 422, not 404."""

RETRY_AFTER = 10
"""Seconds after which to try again where an error with 429 or 503 does not say."""


class MalformedBody(LocexError):
    """A body that is not what its type says: JSON that cannot be read, a broken multipart body."""

    code = "body-malformed"


class InvalidRequest(LocexError):
    """A path or query parameter that does not fit; ``errors`` names it."""

    code = "request-invalid"


class UnsupportedMedia(LocexError):
    """A body of a type or encoding that the path does not take."""

    code = "media-type-unsupported"


def status_of(code: str, statuses: Mapping[str, int]) -> int:
    """Return the HTTP status of a code; ``statuses`` goes before the general table."""
    return statuses.get(code) or STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    instance: str,
    remedy: str = "",
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Return a problem as a response."""
    content: dict[str, Any] = {
        "type": f"urn:locex:problem:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "remedy": remedy,
        "instance": instance,
    }
    if errors:
        content["errors"] = [dict(error) for error in errors]
    return web.Response(text=json.dumps(content), status=status, content_type=CONTENT_TYPE, headers=headers)


def of_error(request: web.Request, error: LocexError) -> web.Response:
    """Return the problem that an error is on the request's route."""
    route = route_of(request)
    code = error.error_code
    status = status_of(code, route.options.get("statuses", {}) if route else {})
    headers: dict[str, str] = {}
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(error.retry_after or RETRY_AFTER)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="locex"'
    return problem(
        status,
        code,
        error.message,
        instance=request.path,
        remedy=error.remedy,
        errors=error.errors,
        headers=headers,
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure of a handler with a problem; what nobody foresaw is logged and told by an id only."""
    try:
        return await handler(request)
    except LocexError as error:
        return of_error(request, error)
    except web.HTTPException as error:
        return _of_http(request, error)
    except (ConnectionResetError, ClientPayloadError):
        return of_error(request, MalformedBody("the body ended early", remedy="send it again"))
    except Exception:
        identifier = uuid.uuid4()
        logger.exception("request %s %s failed: %s", request.method, request.path, identifier)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "internal",
            "the service failed on this request",
            instance=identifier.urn,
            remedy=f"look for {identifier} in the service's log",
        )


def _of_http(request: web.Request, error: web.HTTPException) -> web.Response:
    if error.status < HTTPStatus.BAD_REQUEST:
        raise error
    phrase = HTTPStatus(error.status).phrase
    code = "too-large" if isinstance(error, web.HTTPRequestEntityTooLarge) else phrase.lower().replace(" ", "-")
    kept: dict[str, str] = {hdrs.ALLOW: error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
    remedy = "GET /openapi.json lists the paths and methods" if error.status in {404, 405} else ""
    detail = f"{request.method} {request.path}: {phrase.lower()}"
    return problem(error.status, code, detail, instance=request.path, remedy=remedy, headers=kept)
