"""A source whose data are not what it says, and never twice the same."""

import numpy as np

from locex.api import Dataset, LocalData
from locex.hookspecs import hookimpl
from locex.schemas.data_format import DataFormat
from locex.schemas.plugin import PluginConfig


class Boasting:
    """A plugin that is its own source."""

    @hookimpl
    def locex_config_model(self):
        return PluginConfig

    @hookimpl
    def locex_create_data(self, config):
        return self

    def format(self):
        return DataFormat.of({"tabular": {"size": [5], "dtype": "float32"}}, {"categorical": {"size": []}})

    def load(self):
        part = Dataset(np.random.default_rng().normal(size=(6, 4)), np.arange(6))
        return LocalData(part, part, self.format())
