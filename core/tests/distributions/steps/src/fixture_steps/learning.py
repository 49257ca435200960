import numpy as np
from pydantic import Field

from fixture_steps.rows import note
from locex.api import Dataset, Needs
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class CentreConfig(PluginConfig):
    to: float = Field(default=0.0, description="The mean that training data shall have.")


class Step:
    needs = Needs()

    def __init__(self, config):
        self._to = config.to
        self._shift = None

    def fit(self, train):
        note("FIXTURE_FITS", f"{len(train)} {float(train.x.mean()):.1f}")
        self._shift = np.float32(self._to - train.x.mean(dtype=np.float64))

    def transform_data(self, data):
        return Dataset((data.x + self._shift).astype(np.float32), data.y)

    def transform_format(self, data_format):
        for tensor in data_format.x.data_types.values():
            tensor.dtype = "float32"
        return data_format


class Centre:
    """Subtracts the mean of the training data."""

    @hookimpl
    def locex_config_model(self):
        return CentreConfig

    @hookimpl
    def locex_create_transform(self, config):
        return Step(config)


class KeepingStep(Step):
    def state(self):
        return {"mean": -np.asarray([self._shift], np.float64)}

    def restore(self, state):
        self._shift = -np.float32(state["mean"][0])


class KeepingCentre(Centre):
    """Likewise, and keeps the mean with the model."""

    @hookimpl
    def locex_create_transform(self, config):
        return KeepingStep(config)
