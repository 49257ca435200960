"""The federation ``flower-superlink``: an embedded node of Flower's SuperLink."""

from __future__ import annotations

from locex.api import Federation, FederationContext
from locex.hookspecs import hookimpl
from locex_flower.environment import prepare, quiet
from locex_flower.settings import FlowerSuperlinkConfig


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
