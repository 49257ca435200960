"""The federation ``flower-superlink``: an embedded node of Flower's SuperLink."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from locex.api import Federation, FederationContext
from locex.hookspecs import hookimpl
from locex_flower.environment import prepare, quiet
from locex_flower.settings import ConnectionConfig


class FlowerSuperlinkConfig(ConnectionConfig):
    """Settings of ``flower-superlink``."""

    poll_interval: float = Field(default=0.2, gt=0, description="Seconds between two questions for a message.")
    linger: float = Field(
        default=5.0,
        ge=0,
        description="Seconds that a node which has not taken part in all its rounds stays after the end of a run.",
    )
    private_key_file: Path | None = Field(
        default=None,
        description="The node's EC P-384 private key (OpenSSH or PEM), registered at the SuperLink; needs TLS. "
        "Without it the node registers itself with a fresh key.",
    )


class FlowerSuperlink:
    """Joins a SuperLink over its Fleet API; the server's app bundle is neither fetched nor executed."""

    @hookimpl
    def locex_config_model(self) -> type[FlowerSuperlinkConfig]:
        """Return what users may configure."""
        return FlowerSuperlinkConfig

    @hookimpl
    def locex_create_federation(self, config: FlowerSuperlinkConfig, context: FederationContext) -> Federation:
        """Return a connection, not yet open; raise `InvalidConfiguration` for a key that cannot be used."""
        prepare(context.folder)
        from locex_flower.superlink_node import SuperlinkNode

        quiet()
        return SuperlinkNode(config, context)
