"""Methods as gRPC calls: who may call them, how bytes become messages, how errors become statuses.

Messages are parsed here and not by gRPC, which would answer bytes that are no message with INTERNAL.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Task
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import grpc
from grpc.aio import AbortError

from locex.errors import LocexError
from locex.web.auth import Tokens, require
from locex.web.routes import Scope
from locex_inference.grpc.status import Context, code_of, fail, parse, shortened

Unary: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]
Stream: TypeAlias = Callable[[AsyncIterator[bytes], Context], Awaitable[None]]

AHEAD = 16
"""Requests of one stream that may be under way: replies come in the order of the requests."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method, by its path; ``scope`` None: open without a token."""

    path: str
    scope: Scope | None
    handler: grpc.RpcMethodHandler


def unary(path: str, scope: Scope | None, request: Any, answer: Callable[[Any], Any]) -> Method:
    """Return a method that takes one message and gives one; ``answer`` may be a coroutine function."""
    awaited = asyncio.iscoroutinefunction(answer)

    async def call(content: bytes, context: Context) -> bytes:
        try:
            response = answer(parse(request, content))
            serialized: bytes = (await response if awaited else response).SerializeToString()
        except Exception as error:  # noqa: BLE001 -- every failure ends the call with a status
            await fail(context, error, path)
        return serialized

    return Method(path, scope, grpc.unary_unary_rpc_method_handler(call))


def raw_unary(path: str, scope: Scope, call: Unary) -> Method:
    """Return a method that reads and writes bytes itself."""
    return Method(path, scope, grpc.unary_unary_rpc_method_handler(call))


def raw_stream(path: str, scope: Scope | None, call: Stream) -> Method:
    """Return a method with streams of bytes both ways."""
    return Method(path, scope, grpc.stream_stream_rpc_method_handler(call))


async def in_order(
    requests: AsyncIterator[bytes], context: Context, answer: Callable[[bytes], Awaitable[bytes]], path: str
) -> None:
    """Answer the requests of a stream at once and write the replies in order; an error of ``answer`` ends the stream.

    When the caller goes away, what is under way is cancelled.
    """
    queue: asyncio.Queue[Task[bytes] | None] = asyncio.Queue(AHEAD)
    loop = asyncio.get_running_loop()
    started: set[Task[bytes]] = set()
    reader = loop.create_task(_read(requests, answer, queue, started, loop))
    try:
        while (next_reply := await queue.get()) is not None:
            await context.write(await next_reply)
        await reader
    except AbortError:
        raise
    except Exception as error:  # noqa: BLE001 -- every failure ends the call with a status
        await fail(context, error, path)
    finally:
        reader.cancel()
        for task in list(started):
            task.cancel()


async def _read(
    requests: AsyncIterator[bytes],
    answer: Callable[[bytes], Awaitable[bytes]],
    queue: asyncio.Queue[Task[bytes] | None],
    started: set[Task[bytes]],
    loop: AbstractEventLoop,
) -> None:
    try:
        async for content in requests:
            task = loop.create_task(_awaited(answer, content))
            started.add(task)
            task.add_done_callback(partial(_settle, started))
            await queue.put(task)
    except Exception:
        await queue.put(None)
        raise
    await queue.put(None)


def _settle(started: set[Task[bytes]], task: Task[bytes]) -> None:
    """Forget a task that is over; its error is told where its reply would have been, or nobody waits for it."""
    started.discard(task)
    if not task.cancelled():
        task.exception()


async def _awaited(answer: Callable[[bytes], Awaitable[bytes]], content: bytes) -> bytes:
    return await answer(content)


class Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    """All methods of a server. ``anywhere`` are services whose clients may have been compiled with another package."""

    def __init__(self, methods: list[Method], tokens: Tokens | None, anywhere: frozenset[str] = frozenset()) -> None:
        """``tokens`` None: every caller may everything."""
        self._methods: Mapping[str, Method] = {method.path: method for method in methods}
        self._tokens = tokens
        self._unpackaged = {_unpackaged(path): method for path, method in self._methods.items()}
        self._anywhere = anywhere

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return the method of a call, one that refuses it, or None for a method that there is not."""
        path = handler_call_details.method
        method = self._methods.get(path) or self._elsewhere(path)
        if method is None or self._tokens is None or method.scope is None:
            return method.handler if method else None
        try:
            require(self._tokens, _authorization(handler_call_details), method.scope)
        except LocexError as error:
            return _refusal(error, method.handler)
        return method.handler

    def _elsewhere(self, path: str) -> Method | None:
        short = _unpackaged(path)
        return self._unpackaged.get(short) if short.partition("/")[0] in self._anywhere else None


def _unpackaged(path: str) -> str:
    service, _, method = path.removeprefix("/").partition("/")
    return f"{service.rpartition('.')[2]}/{method}"


def _authorization(details: grpc.HandlerCallDetails) -> str:
    for key, value in details.invocation_metadata or ():
        if key == "authorization":
            return value if isinstance(value, str) else value.decode("latin-1")
    return ""


def _refusal(error: LocexError, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
    """Return a method of the same kind that ends every call with the error."""

    async def refuse(_: Any, context: Context) -> None:
        await context.abort(code_of(error), shortened(error.message))

    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)
