from pydantic import Field

from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class SgdConfig(PluginConfig):
    learning_rate: float = Field(default=0.5, gt=0, description="The step size.")


class Sgd:
    """A plain learning rate."""

    @hookimpl
    def locex_config_model(self):
        return SgdConfig

    @hookimpl
    def locex_create_optimizer(self, config, parameters):
        return config.learning_rate
