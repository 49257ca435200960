import numpy as np
from pydantic import Field

from locex.api import Dataset, Needs
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class ScaleConfig(PluginConfig):
    factor: float = Field(default=1.0, description="What inputs are multiplied with.")
    repeat: int = Field(default=1, gt=0, description="How often the features are repeated side by side.")


class Step:
    needs = Needs()

    def __init__(self, config):
        self._config = config

    def transform_data(self, data):
        return Dataset(np.tile(data.x * np.float32(self._config.factor), self._config.repeat), data.y)

    def transform_format(self, data_format):
        changed = data_format.model_copy(deep=True)
        for tensor in changed.x.data_types.values():
            if len(tensor.size) != 1:
                raise ValueError(f"rank 1 is needed, not {len(tensor.size)}")
            tensor.size = [tensor.size[0] * self._config.repeat]
        return changed


class Scale:
    """Multiplies inputs."""

    @hookimpl
    def locex_config_model(self):
        return ScaleConfig

    @hookimpl
    def locex_create_transform(self, config):
        return Step(config)


class LyingStep(Step):
    def transform_data(self, data):
        return Dataset(data.x[..., None], data.y)


class WrongRule:
    """Its data has another rank than its format rule says."""

    @hookimpl
    def locex_config_model(self):
        return ScaleConfig

    @hookimpl
    def locex_create_transform(self, config):
        return LyingStep(config)
