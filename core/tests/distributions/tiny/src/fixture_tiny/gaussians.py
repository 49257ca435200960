import numpy as np
from pydantic import Field

from locex.api import Dataset, LocalData
from locex.hookspecs import hookimpl
from locex.schemas.data_format import DataFormat
from locex.schemas.plugin import PluginConfig


class GaussiansConfig(PluginConfig):
    features: int = Field(default=4, gt=0, description="Features of an example.")
    classes: int = Field(default=3, gt=1, description="Classes.")


class Source:
    def __init__(self, config):
        self._config = config

    def format(self):
        x = {"tabular": {"size": [self._config.features], "dtype": "float32"}}
        return DataFormat.of(x, {"categorical": {"size": [], "dtype": "int64"}})

    def load(self):
        generator = np.random.default_rng(7)
        centres = generator.normal(size=(self._config.classes, self._config.features)) * 3
        y = generator.integers(self._config.classes, size=600)
        x = (centres[y] + generator.normal(size=(600, self._config.features))).astype(np.float32)
        return LocalData(Dataset(x[:400], y[:400]), Dataset(x[400:], y[400:]), self.format())


class Gaussians:
    """A few Gaussian clouds, always the same."""

    @hookimpl
    def locex_config_model(self):
        return GaussiansConfig

    @hookimpl
    def locex_create_data(self, config, context):
        return Source(config)
