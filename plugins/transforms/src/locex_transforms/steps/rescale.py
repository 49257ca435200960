"""The transformation ``rescale``: x · scale + offset, as float32."""

from __future__ import annotations

import numpy as np
from pydantic import Field, field_validator

from locex.api import Array, Dataset
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideConfig, SideStep, as_float32


class RescaleConfig(SideConfig):
    """Factor and summand."""

    scale: float = Field(default=1 / 255, description="What values are multiplied by; 1/255 maps bytes to 0 … 1.")
    offset: float = Field(default=0.0, description="What is added after that.")

    @field_validator("scale")
    @classmethod
    def _not_zero(cls, value: float) -> float:
        if value == 0:
            raise ValueError("must not be 0")
        return value


class RescaleStep(SideStep):
    """Rescales one side; see `RescaleConfig`."""

    name = "rescale"

    def __init__(self, config: RescaleConfig) -> None:
        super().__init__(config.side)
        self._scale, self._offset = config.scale, config.offset

    def changed(self, array: Array) -> Array:
        """Return float32 of the same shape; types of more than 16 bits are computed in their own precision."""
        dtype = np.result_type(array.dtype, np.float32)
        scaled = np.multiply(array, dtype.type(self._scale), dtype=dtype)
        if self._offset:
            scaled += dtype.type(self._offset)
        return as_float32(scaled)

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return a normalized float32 format."""
        self.need_numbers(kind, tensor)
        return tensor.model_copy(update={"dtype": "float32", "normalized": True})

    def inverse_data(self, data: Dataset) -> Dataset:
        """Return float32 values as they were before, to within float32."""
        scale = 1 / self._scale
        back = RescaleConfig(side=self.side, scale=scale, offset=-self._offset * scale)
        return RescaleStep(back).transform_data(data)


class Rescale(StepPlugin):
    """Values times a factor, plus a summand (``rescale``)."""

    config_model = RescaleConfig
    step = RescaleStep
