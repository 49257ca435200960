"""The store as a plugin, named ``mongodb``; motor is imported when a store is made."""

from __future__ import annotations

from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex.store.protocol import Store, StoreContext
from locex_mongo_store.options import MongoConfig


class MongoPlugin:
    """Records and models in MongoDB (``mongodb``)."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the model of the options."""
        return MongoConfig

    @hookimpl
    def locex_create_store(self, config: MongoConfig, context: StoreContext) -> Store:
        """Return a store of the context's node, not yet open; raise `InvalidConfiguration` for an unusable URL."""
        from locex_mongo_store.driver import Deployment
        from locex_mongo_store.store import MongoStore

        return MongoStore(Deployment(context.url, config), config, context)
