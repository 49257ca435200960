"""`ModelInfer` and `ModelStreamInfer`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from time import perf_counter
from typing import TypeAlias

from locex.web.routes import Scope
from locex_inference.grpc.calls import Method, in_order, raw_stream, raw_unary
from locex_inference.grpc.infer import Asked, decode, encode, encoded
from locex_inference.grpc.messages import ModelInferRequest, ModelStreamInferResponse
from locex_inference.grpc.parts import Parts
from locex_inference.grpc.status import Context, fail, foreseen, name_of
from locex_inference.request import InferResponse
from locex_inference.requested import deadline_of
from locex_inference.shared_memory import SharedMemory
from locex_inference.tracing import end

Form: TypeAlias = Callable[[InferResponse, Asked, SharedMemory], bytes]

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def methods(parts: Parts) -> list[Method]:
    """Return both methods."""
    inference = _Inference(parts)
    return [raw_unary(_INFER, Scope.RUN, inference.infer), raw_stream(_STREAM, Scope.RUN, inference.stream)]


class _Inference:
    def __init__(self, parts: Parts) -> None:
        self._serving = parts.serving
        self._memory = parts.shared_memory
        self._tracing = parts.tracing if parts.tracing and parts.tracing.on else None
        self._log = parts.access_log if parts.access_log and parts.access_log.on else None

    async def infer(self, content: bytes, context: Context) -> bytes:
        """Answer one request."""
        try:
            return await self._reply(content, context, encoded, _INFER)
        except Exception as error:  # noqa: BLE001 -- every failure ends the call with a status
            await fail(context, error, _INFER)

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Answer each request of a stream; errors are told in it, and end it only where the caller asks for that."""
        ending = _headers(context).get("triton_grpc_error") == "true"

        async def answer(content: bytes) -> bytes:
            try:
                return await self._reply(content, context, _streamed, _STREAM)
            except Exception as error:
                if ending:
                    raise
                return _told(error, content)

        await in_order(requests, context, answer, _STREAM)

    async def _reply(self, content: bytes, context: Context, form: Form, path: str) -> bytes:
        if self._tracing or self._log:
            return await self._observed(content, context, form, path)
        asked = decode(content, self._memory)
        return form(await self._answer(asked, context), asked, self._memory)

    async def _observed(self, content: bytes, context: Context, form: Form, path: str) -> bytes:
        """Answer one request, with a span and a line of the access log."""
        began, method = perf_counter(), path.rpartition("/")[2]
        asked, span, failure = None, None, None
        try:
            asked = decode(content, self._memory)
            if self._tracing:
                span = self._tracing.begin(method, asked.request.model, _headers(context))
            return form(await self._answer(asked, context), asked, self._memory)
        except BaseException as error:
            failure = error
            raise
        finally:
            end(span, failure)
            if self._log:
                self._log.write(
                    transport="grpc",
                    method=method,
                    path=path,
                    status=name_of(failure),
                    seconds=perf_counter() - began,
                    remote=context.peer(),
                    model=asked.request.model if asked else "",
                )

    async def _answer(self, asked: Asked, context: Context) -> InferResponse:
        request = asked.request
        left = context.time_remaining()
        if left is not None or request.parameters:
            now = asyncio.get_running_loop().time()
            request.deadline = deadline_of(request.parameters, now, None if left is None else now + left)
        response = self._serving.infer_now(request)
        return await self._serving.infer(request) if response is None else response


def _streamed(response: InferResponse, asked: Asked, shared_memory: SharedMemory) -> bytes:
    """Return the bytes of a `ModelStreamInferResponse`; a model gives one response to a request, which is its last."""
    message, raw = encode(response, asked, shared_memory)
    if asked.final:
        message.parameters["triton_final_response"].bool_param = True
    message.raw_output_contents.extend(bytes(each) for each in raw)
    serialized: bytes = ModelStreamInferResponse(infer_response=message).SerializeToString()
    return serialized


def _headers(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _told(error: Exception, content: bytes) -> bytes:
    """Return an error as a message of the stream, with the request's id where that could be read."""
    message = ModelStreamInferResponse(error_message=foreseen(error, _STREAM).message)
    try:
        message.infer_response.id = ModelInferRequest.FromString(content).id
    except ValueError:
        message.infer_response.id = ""
    serialized: bytes = message.SerializeToString()
    return serialized
