"""The federation ``flower-grpc``: Flower's classic gRPC channel, which FL Training Collectors speak."""

from __future__ import annotations

from locex.api import Federation, FederationContext
from locex.hookspecs import hookimpl
from locex_flower.environment import prepare, quiet
from locex_flower.settings import FlowerGrpcConfig


class FlowerGrpc:
    """Joins a Flower server over the classic bidirectional gRPC channel."""

    @hookimpl
    def locex_config_model(self) -> type[FlowerGrpcConfig]:
        """Return what users may configure."""
        return FlowerGrpcConfig

    @hookimpl
    def locex_create_federation(self, config: FlowerGrpcConfig, context: FederationContext) -> Federation:
        """Return a connection, not yet open."""
        prepare(context.folder)
        from locex_flower.grpc_node import GrpcNode

        quiet()
        return GrpcNode(config, context)
