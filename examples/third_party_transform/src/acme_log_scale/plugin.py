"""The transformation ``log_scale``: the logarithm of inputs that spread over powers of ten."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Dataset, Needs, Transform
from locex.hookspecs import hookimpl
from locex.schemas.data_format import DataFormat, TensorFormat
from locex.schemas.plugin import PluginConfig


class LogScaleConfig(PluginConfig):
    """What users may write in ``parameters``."""

    offset: float = Field(default=1.0, gt=0, description="Added before the logarithm, so that zero has one.")


class LogScaleStep:
    """Takes log(x + offset); the result is float32, and NaN where x is not above -offset."""

    needs = Needs()

    def __init__(self, config: LogScaleConfig) -> None:
        self._offset = config.offset

    def transform_format(self, data_format: DataFormat) -> DataFormat:
        """Return the format after this step: sizes stay, numbers become float32."""
        kinds = {kind: _as_float(tensor) for kind, tensor in data_format.x.data_types.items()}
        return data_format.model_copy(update={"x": data_format.x.model_copy(update={"data_types": kinds})})

    def transform_data(self, data: Dataset) -> Dataset:
        """Return new inputs; the arrays that came in stay as they are."""
        shifted = np.add(data.x, self._offset, dtype=np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            return Dataset(np.log(shifted), data.y)

    def inverse_data(self, data: Dataset) -> Dataset:
        """Return what `transform_data` was given."""
        return Dataset(np.exp(data.x) - np.float32(self._offset), data.y)


def _as_float(tensor: TensorFormat) -> TensorFormat:
    return tensor.model_copy(update={"dtype": "float32"})


class LogScale:
    """Takes logarithms of inputs (``log_scale``)."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return what users may configure."""
        return LogScaleConfig

    @hookimpl
    def locex_create_transform(self, config: LogScaleConfig) -> Transform:
        """Return the step."""
        return LogScaleStep(config)
