"""The embedded store as a plugin, named ``sqlite``: in the state folder, or in that of ``sqlite:FOLDER``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from locex.errors import InvalidConfiguration
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex.store.lock import FolderLock
from locex.store.protocol import Store, StoreContext
from locex.store.sqlite_store import SqliteStore


class SqliteConfig(PluginConfig):
    """What an operator may choose of the embedded store."""

    sweep_grace: float = Field(
        default=3600, ge=0, description="Unreferenced blobs younger than this are kept by a sweep, in seconds."
    )


class SqlitePlugin:
    """Records in SQLite, models in files beside it (``sqlite``)."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the model of the options."""
        return SqliteConfig

    @hookimpl
    def locex_create_store(self, config: SqliteConfig, context: StoreContext) -> Store:
        """Return a store, not yet open; raise `InvalidConfiguration` for another URL than ``sqlite:FOLDER``."""
        folder = _folder_of(context)
        lock = None if folder.absolute() == context.folder.absolute() else FolderLock(folder)
        return SqliteStore(folder, sweep_grace=config.sweep_grace, lock=lock)


def _folder_of(context: StoreContext) -> Path:
    scheme, _, rest = context.url.partition(":")
    path = rest.removeprefix("//")
    if context.url and (scheme != "sqlite" or (path != rest and not path.startswith("/"))):
        raise InvalidConfiguration(
            "the URL of the embedded store is not sqlite:FOLDER",
            remedy="write LOCEX_STORE_URL as sqlite:/path/of/a/folder; sqlite: alone is the state folder",
        )
    return Path(path) if path else context.folder
