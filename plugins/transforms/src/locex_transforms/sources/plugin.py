"""The plugin around a source: its configuration's model and the source's class."""

from __future__ import annotations

from typing import Any, ClassVar

from locex.api import DataSource, SiteContext
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class SourcePlugin:
    """Base of every entry point of ``locex.data`` here."""

    config_model: ClassVar[type[PluginConfig]]
    source: ClassVar[Any]
    """Makes a `DataSource` of a configuration and a site: a class."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the source's configuration."""
        return self.config_model

    @hookimpl
    def locex_create_data(self, config: PluginConfig, context: SiteContext) -> DataSource:
        """Return the source over the site's data folder."""
        made: DataSource = self.source(config, context)
        return made
