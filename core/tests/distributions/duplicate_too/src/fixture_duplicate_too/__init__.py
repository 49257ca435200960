from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class DoubledConfig(PluginConfig):
    pass


class Doubled:
    """Two distributions offer this name."""

    @hookimpl
    def locex_config_model(self):
        return DoubledConfig

    @hookimpl
    def locex_create_transform(self, config):
        raise NotImplementedError
