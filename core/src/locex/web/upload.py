"""Bodies too large for memory, as chunks: raw bytes, or the file of a multipart form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from locex.errors import TooLarge
from locex.web.problems import MalformedBody, UnsupportedMedia

CHUNK = 1 << 18

RAW = ("application/octet-stream", "application/zip", "application/x-zip-compressed")
FORM = "multipart/form-data"
FIELD = "file"
FRAME = 1 << 20
"""Bytes that a form may hold beside its file."""

CONSUMES: Mapping[str, Mapping[str, Any]] = {
    "application/octet-stream": {},
    "application/zip": {},
    FORM: {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "string", "contentMediaType": "application/octet-stream"}},
    },
}
"""For `RouteOptions.consumes`."""


async def upload_chunks(request: web.Request, *, limit: int) -> AsyncIterator[bytes]:
    """Yield the bytes of an upload; raise `TooLarge`, `UnsupportedMedia` or `MalformedBody` (also for no bytes)."""
    _check_length(request.content_length, limit + (FRAME if request.content_type == FORM else 0))
    total = 0
    async for chunk in _source(request):
        total += len(chunk)
        _check_length(total, limit)
        yield chunk
    if not total:
        raise MalformedBody("the upload is empty", remedy="send the file's bytes")


def _check_length(size: int | None, limit: int) -> None:
    if size is not None and size > limit:
        raise TooLarge(f"the upload has more than {limit} bytes", remedy="send less, or raise the service's bound")


def _source(request: web.Request) -> AsyncIterator[bytes]:
    if request.content_type == FORM:
        return _form_file(request)
    if hdrs.CONTENT_TYPE not in request.headers or request.content_type in RAW:
        return request.content.iter_chunked(CHUNK)
    raise UnsupportedMedia(
        f"an upload of type {request.content_type} is not taken here",
        remedy=f"send {RAW[0]}, or a form with the field {FIELD!r}",
    )


async def _form_file(request: web.Request) -> AsyncIterator[bytes]:
    remedy = f"send a form with one field {FIELD!r}"
    found = False
    try:
        # To the end of the form, where a missing last boundary shows that the file was cut off.
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == FIELD and not found:
                found = True
                _refuse_encoding(part)
                while chunk := await part.read_chunk(CHUNK):
                    yield bytes(chunk)
    except (ValueError, AssertionError, LookupError, HttpProcessingError) as error:
        raise MalformedBody(f"the form cannot be read: {error}", remedy=remedy) from None
    if not found:
        raise MalformedBody(f"the form has no field {FIELD!r}", remedy=remedy)


def _refuse_encoding(part: BodyPartReader) -> None:
    transfer = part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING, "binary").lower()
    if hdrs.CONTENT_ENCODING in part.headers or transfer not in {"binary", "8bit", "7bit"}:
        raise UnsupportedMedia("an encoded part is not taken", remedy="send the file's bytes as they are")
