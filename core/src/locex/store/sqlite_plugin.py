"""The embedded store as a plugin, named ``sqlite``."""

from __future__ import annotations

from pydantic import Field

from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex.store.protocol import Store, StoreContext
from locex.store.sqlite_store import SqliteStore


class SqliteConfig(PluginConfig):
    """What an operator may choose of the embedded store."""

    sweep_grace: float = Field(
        default=3600, ge=0, description="Unreferenced blobs younger than this are kept by a sweep, in seconds."
    )


class SqlitePlugin:
    """Offers `SqliteStore`."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the model of the options."""
        return SqliteConfig

    @hookimpl
    def locex_create_store(self, config: SqliteConfig, context: StoreContext) -> Store:
        """Return a store in the context's folder, not yet open."""
        return SqliteStore(context.folder, sweep_grace=config.sweep_grace)
