"""Errors as the protocol has them on HTTP: a status and ``{"error": …}``, always."""

from __future__ import annotations

import logging
import math
import uuid
from http import HTTPStatus
from typing import NamedTuple

import orjson
from aiohttp import ClientPayloadError, hdrs, web
from aiohttp.typedefs import Handler

from locex.errors import LocexError
from locex.web.problems import RETRY_AFTER, problems, status_of
from locex_inference.errors import InferenceError

logger = logging.getLogger(__name__)

PREFIX = "/v2"


class Failure(NamedTuple):
    """What a caller is told."""

    status: int
    body: bytes
    headers: dict[str, str]


def failure_of(error: BaseException) -> Failure:
    """Return what an error is on HTTP; what nobody foresaw is logged and told by an id only."""
    headers: dict[str, str] = {hdrs.CONTENT_TYPE: "application/json"}
    if not isinstance(error, LocexError):
        identifier = uuid.uuid4()
        logger.error("a request failed: %s", identifier, exc_info=error)
        text = f"the service failed on this request; look for {identifier} in its log"
        return Failure(HTTPStatus.INTERNAL_SERVER_ERROR, _body(text), headers)
    status = error.http if isinstance(error, InferenceError) else status_of(error.error_code, {})
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST  # the protocol knows one status for what does not fit
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(error.retry_after or RETRY_AFTER)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="locex"'
    return Failure(status, _body(error.message, error.error_code, error.remedy), headers)


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer failures of the protocol's paths in its form, those of all others as problems."""
    if not request.path.startswith(PREFIX):
        return await problems(request, handler)
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        phrase = HTTPStatus(error.status).phrase.lower()
        return web.Response(
            body=_body(f"{request.method} {request.path}: {phrase}", phrase.replace(" ", "-")),
            status=error.status,
            content_type="application/json",
        )
    except (ConnectionResetError, ClientPayloadError):
        return web.Response(body=_body("the body ended early", "body-malformed"), status=HTTPStatus.BAD_REQUEST)
    except Exception as error:  # noqa: BLE001 -- a caller learns no more than that
        told = failure_of(error)
        return web.Response(body=told.body, status=told.status, headers=told.headers)


def _body(text: str, code: str = "internal", remedy: str = "") -> bytes:
    content = {"error": text, "code": code}
    if remedy:
        content["remedy"] = remedy
    try:
        return orjson.dumps(content)
    except TypeError:  # half a surrogate pair, from a caller's own text
        return orjson.dumps({name: value.encode(errors="replace").decode() for name, value in content.items()})
