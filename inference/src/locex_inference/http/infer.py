"""Infer requests on HTTP: what both ways in, aiohttp's and the fast one, do with the bytes that they have read."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Protocol

from locex.web.problems import MalformedBody
from locex_inference.access_log import AccessLog
from locex_inference.engine.ticket import Done, Ticket
from locex_inference.errors import InvalidInference
from locex_inference.http.compression import accepted, compress, decompress
from locex_inference.http.decoding import Asked, decode
from locex_inference.http.encoding import encode
from locex_inference.http.errors import failure_of
from locex_inference.request import InferRequest, InferResponse
from locex_inference.serving import Serving
from locex_inference.shared_memory import SharedMemory
from locex_inference.tracing import Tracing, end

if TYPE_CHECKING:
    from opentelemetry.trace import Span

HEADER_LENGTH = "Inference-Header-Content-Length"
TIMEOUT = "X-Request-Timeout"

_COMPRESS_FROM = 1024
"""Bytes below which compression costs more than it saves."""

_JSON, _BINARY = "application/json", "application/octet-stream"


class Submitting(Serving, Protocol):
    """A service that also takes requests without a task for each."""

    def submit(self, request: InferRequest, done: Done) -> Ticket:
        """Take a request; ``done`` is called with its ticket. Raise an `InferenceError` where it is not taken."""


class Reply(NamedTuple):
    """An answer, ready to be written."""

    status: int
    headers: dict[str, str]
    parts: list[bytes | memoryview]

    @property
    def size(self) -> int:
        """The body's length in bytes."""
        return sum(map(len, self.parts))


@dataclass(slots=True)
class Arrival:
    """An infer request whose headers have been read; their names are in lower case."""

    model: str
    version: str
    path: str
    headers: Mapping[str, str]
    remote: str
    began: float
    span: Span | None = None
    asked: Asked | None = None


class Inference:
    """From an arrival and its body to a reply; the same checks, spans and log lines whichever way it came."""

    def __init__(
        self,
        serving: Submitting,
        memory: SharedMemory,
        tracing: Tracing,
        log: AccessLog,
        body_limit: int,
    ) -> None:
        """``body_limit`` bounds bodies, compressed and not, in bytes."""
        self.serving = serving
        self.body_limit = body_limit
        self._memory = memory
        self._tracing = tracing
        self._log = log
        self._clock = asyncio.get_running_loop().time

    def arrive(self, model: str, version: str, path: str, headers: Mapping[str, str], remote: str) -> Arrival:
        """Begin with a request."""
        arrival = Arrival(model, version, path, headers, remote, time.perf_counter())
        if self._tracing.on:
            arrival.span = self._tracing.begin("infer", model, headers)
        return arrival

    def decode(self, arrival: Arrival, body: bytes | memoryview) -> InferRequest:
        """Return the request that the body holds; raise a `LocexError` for one that cannot be."""
        headers = arrival.headers
        if (encoding := headers.get("content-encoding")) is not None:
            body = decompress(body, encoding, self.body_limit)
        now = self._clock()
        request = InferRequest(arrival.model, {}, arrival.version)
        if (timeout := headers.get("x-request-timeout")) is not None:
            request.deadline = now + _seconds(timeout)
        arrival.asked = decode(body, header_length(headers), request, self._memory, now)
        return request

    def answer(self, arrival: Arrival, response: InferResponse) -> Reply:
        """Return the reply that tells a response; raise `InvalidInference` where it cannot be written as asked."""
        assert arrival.asked is not None
        parts, header_length = encode(arrival.asked, response, self._memory)
        headers = {"Content-Type": _JSON if header_length is None else _BINARY}
        if header_length is not None:
            headers[HEADER_LENGTH] = str(header_length)
        wish = arrival.headers.get("accept-encoding")
        if wish is not None and (encoding := accepted(wish)) and sum(map(len, parts)) >= _COMPRESS_FROM:
            headers["Content-Encoding"] = encoding
            parts = [compress(b"".join(parts), encoding)]
        return Reply(HTTPStatus.OK, headers, parts)

    def refuse(self, error: BaseException) -> Reply:
        """Return the reply that tells an error."""
        told = failure_of(error)
        return Reply(told.status, told.headers, [told.body])

    def settle(
        self,
        arrival: Arrival,
        reply: Reply,
        response: InferResponse | None,
        error: BaseException | None,
    ) -> None:
        """Note what became of a request: its span ends, its log line is written."""
        if arrival.span is not None:
            end(arrival.span, error, version=response.version if response else arrival.version, status=reply.status)
        if self._log.on:
            self._log.write(
                transport="http",
                method="POST",
                path=arrival.path,
                status=reply.status,
                seconds=time.perf_counter() - arrival.began,
                remote=arrival.remote,
                bytes=reply.size,
                model=arrival.model,
                version=response.version if response else arrival.version,
            )


def header_length(headers: Mapping[str, str]) -> int | None:
    """Return the size of the JSON in front of the tensors' bytes, in bytes; None where there are no such bytes."""
    text = headers.get("inference-header-content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):  # noqa: PLR2004 -- fits 64 bits
        raise MalformedBody(f"{HEADER_LENGTH} is no length: {text[:40]!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InvalidInference(f"{TIMEOUT} is no number of seconds: {text[:40]!r}")
    return seconds
