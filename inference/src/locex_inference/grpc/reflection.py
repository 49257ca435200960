"""Server reflection, for tools such as grpcurl that have no schema at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from locex.web.routes import Scope
from locex_inference.grpc.calls import Method, in_order, raw_stream
from locex_inference.grpc.messages import POOL
from locex_inference.grpc.status import Context, parse

_VERSIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")  # the same messages, byte by byte


def methods(services: list[str]) -> list[Method]:
    """Return the methods that describe these services; they need the scope to read."""
    for described in (health_pb2, reflection_pb2):
        POOL.AddSerializedFile(described.DESCRIPTOR.serialized_pb)
    servicer = reflection.ReflectionServicer([*services, reflection.SERVICE_NAME], pool=POOL)

    async def answer(content: bytes) -> bytes:
        request = parse(reflection_pb2.ServerReflectionRequest, content)
        [response] = servicer.ServerReflectionInfo(iter([request]), None)
        serialized: bytes = response.SerializeToString()
        return serialized

    async def describe(requests: AsyncIterator[bytes], context: Context) -> None:
        await in_order(requests, context, answer, "ServerReflectionInfo")

    paths = [f"/{version}.ServerReflection/ServerReflectionInfo" for version in _VERSIONS]
    return [raw_stream(path, Scope.READ, describe) for path in paths]
