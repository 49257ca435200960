"""Reading bodies as the protocol's clients send them: without a Content-Type, compressed, or empty."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import hdrs, web

from locex.errors import TooLarge
from locex.web.problems import MalformedBody
from locex_inference.http.compression import decompress

CONTROL_LIMIT = 1 << 20
"""Bytes of a body that holds no tensors and no model."""


async def read_body(request: web.Request, limit: int) -> bytes:
    """Return the body as it came; raise `TooLarge` as soon as it has more than ``limit`` bytes."""
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    chunks = bytearray()
    async for chunk in request.content.iter_any():
        chunks += chunk
        if len(chunks) > limit:
            raise too_large(limit)
    return bytes(chunks)


async def read_object(request: web.Request, limit: int = CONTROL_LIMIT) -> dict[str, Any]:
    """Return the JSON object of a body; an empty body is an empty object."""
    body = decompress(await read_body(request, limit), request.headers.get(hdrs.CONTENT_ENCODING, ""), limit)
    if not body.strip():
        return {}
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise MalformedBody("the body is not a JSON object")
    return content


def too_large(limit: int) -> TooLarge:
    """Return the error for a body beyond the limit."""
    return TooLarge(f"the body has more than {limit} bytes", remedy="send less, or raise the service's bound")
