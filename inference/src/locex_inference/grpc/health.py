"""The service grpc.health.v1, asked about this process, about the protocol's service, and about models by name."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from locex.errors import LocexError
from locex_inference.errors import UnknownServed
from locex_inference.grpc.calls import Method, unary
from locex_inference.grpc.status import Context, fail, parse
from locex_inference.serving import Serving

SERVICE = "grpc.health.v1.Health"
INTERVAL = 1.0
"""Seconds between two looks at what somebody watches."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Answers about health.

    The empty name: alive; the protocol's service: ready; ``model`` or ``model/version``: whether that is ready.
    """

    def __init__(self, serving: Serving, services: frozenset[str]) -> None:
        """``services``: full names of the services that are ready when all models are."""
        self._serving = serving
        self._services = services
        self._stopping = asyncio.Event()

    def methods(self) -> list[Method]:
        """Return the methods; health is open without a token."""
        watch = Method(f"/{SERVICE}/Watch", None, grpc.unary_stream_rpc_method_handler(self._watch))
        return [unary(f"/{SERVICE}/Check", None, health_pb2.HealthCheckRequest, self._check), watch]

    def stop(self) -> None:
        """Say from now on that nothing is served, and end the calls of those who watch."""
        self._stopping.set()

    def _check(self, request: Any) -> Any:
        status = self._status(request.service)
        if status == _UNKNOWN:
            raise UnknownServed(f"neither a service nor a model is named {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def _watch(self, content: bytes, context: Context) -> None:
        try:
            service = parse(health_pb2.HealthCheckRequest, content).service
        except LocexError as error:
            await fail(context, error, f"/{SERVICE}/Watch")
        last = None
        while True:
            last_look = self._stopping.is_set()
            status = self._status(service)
            if status != last:
                await context.write(health_pb2.HealthCheckResponse(status=status).SerializeToString())
                last = status
            if last_look:
                return
            try:
                await asyncio.wait_for(self._stopping.wait(), INTERVAL)
            except TimeoutError:
                continue

    def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
        if self._stopping.is_set():
            return _NOT_SERVING
        if not service:
            ready = self._serving.live()
        elif service in self._services:
            ready = self._serving.ready()
        else:
            name, _, version = service.partition("/")
            try:
                ready = self._serving.model_ready(name, version)
            except UnknownServed:
                return _UNKNOWN
            except LocexError:
                ready = False
        return _SERVING if ready else _NOT_SERVING
