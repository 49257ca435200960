from pydantic import Field

from locex.api import Dataset, Needs
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class JitterConfig(PluginConfig):
    width: float = Field(default=1.0, description="Standard deviation of the noise.")


class Step:
    needs = Needs()

    def __init__(self, config):
        self._width = config.width

    def transform_batch(self, batch, generator):
        noise = generator.normal(0, self._width, batch.x.shape)
        return Dataset((batch.x + noise).astype(batch.x.dtype), batch.y)

    def transform_data(self, data):
        raise AssertionError("a step that draws is never asked this")

    def transform_format(self, data_format):
        return data_format


class Jitter:
    """Adds noise to training batches."""

    @hookimpl
    def locex_config_model(self):
        return JitterConfig

    @hookimpl
    def locex_create_transform(self, config):
        return Step(config)


class WantingConfig(PluginConfig):
    model: str = Field(description="The model that is needed.")


class WantingStep:
    def __init__(self, config):
        self.needs = Needs(models=(config.model,))

    def transform_data(self, data):
        return data

    def transform_format(self, data_format):
        return data_format


class Wanting:
    """Does nothing, with a model."""

    @hookimpl
    def locex_config_model(self):
        return WantingConfig

    @hookimpl
    def locex_create_transform(self, config):
        return WantingStep(config)
