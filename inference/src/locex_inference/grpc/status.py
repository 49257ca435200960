"""Errors as gRPC statuses."""

from __future__ import annotations

import logging
import uuid
from typing import Any, NoReturn, TypeAlias

from google.protobuf.message import DecodeError
from grpc import StatusCode
from grpc.aio import ServicerContext

from locex.errors import LocexError
from locex.web.problems import status_of
from locex_inference.errors import InferenceError, InvalidInference

logger = logging.getLogger(__name__)

Context: TypeAlias = ServicerContext[Any, Any]

_LONGEST = 600
_OF_HTTP = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    409: StatusCode.FAILED_PRECONDITION,
    413: StatusCode.RESOURCE_EXHAUSTED,
    415: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    424: StatusCode.FAILED_PRECONDITION,
    429: StatusCode.RESOURCE_EXHAUSTED,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
}


class MalformedMessage(InvalidInference):
    """Bytes that are no message of the method."""

    code = "message-malformed"


def code_of(error: LocexError) -> StatusCode:
    """Return the gRPC status of an error."""
    if isinstance(error, InferenceError):
        return StatusCode[error.grpc]
    return _OF_HTTP.get(status_of(error.error_code, {}), StatusCode.INTERNAL)


def name_of(error: BaseException | None) -> str:
    """Return the name of the gRPC status that a call ended with."""
    if error is None:
        return "OK"
    if isinstance(error, LocexError):
        return str(code_of(error).name)
    return "INTERNAL" if isinstance(error, Exception) else "CANCELLED"


def parse(kind: Any, content: bytes) -> Any:
    """Return a message of a class; raise `MalformedMessage` for bytes that are none."""
    try:
        return kind.FromString(content)
    except DecodeError:
        raise MalformedMessage(f"the request is no message of the type {kind.DESCRIPTOR.full_name}") from None


def foreseen(error: Exception, what: str) -> LocexError:
    """Return an error that callers may see: itself, or one that names an entry of the log."""
    if isinstance(error, LocexError):
        return error
    identifier = uuid.uuid4()
    logger.error("%s failed: %s", what, identifier, exc_info=error)
    return InferenceError("the service failed on this request", remedy=f"look for {identifier} in the service's log")


def shortened(text: str) -> str:
    """Return a text that fits into trailing metadata, of which gRPC takes 8 KiB, when every character is escaped."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


async def fail(context: Context, error: Exception, what: str) -> NoReturn:
    """End a call with the status that an error has."""
    known = foreseen(error, what)
    await context.abort(code_of(known), shortened(known.message))
    raise known  # gRPC's `abort` has raised already
