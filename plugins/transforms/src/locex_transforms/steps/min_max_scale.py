"""The transformation ``min_max_scale``: the training split's range onto a given one."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from locex.api import Array
from locex_transforms.batches import batches
from locex_transforms.steps.fitted import ScalerConfig, ScalerStep, nonzero
from locex_transforms.steps.plugin import StepPlugin


class MinMaxScaleConfig(ScalerConfig):
    """The range that training data fill; test data may pass it (add ``clip``)."""

    low: float = Field(default=0.0, description="What the least training value becomes.")
    high: float = Field(default=1.0, description="What the greatest training value becomes.")

    @model_validator(mode="after")
    def _range(self) -> MinMaxScaleConfig:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, not below high, {self.high}")
        return self


class MinMaxScaleStep(ScalerStep):
    """Maps [min, max] onto [low, high]; a constant feature becomes low."""

    name = "min_max_scale"

    def __init__(self, config: MinMaxScaleConfig) -> None:
        super().__init__(config)
        self._low, self._high = config.low, config.high

    def learned(self, array: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
        """Return shift and width such that (x - shift) / width lies between low and high."""
        least, greatest = np.full(1, np.inf), np.full(1, -np.inf)
        for chunk in batches(array):
            least = np.minimum(least, chunk.min(axes, keepdims=True).astype(np.float64))
            greatest = np.maximum(greatest, chunk.max(axes, keepdims=True).astype(np.float64))
        width = nonzero(greatest - least) / (self._high - self._low)
        return least - self._low * width, width


class MinMaxScale(StepPlugin):
    """The training split's range onto a given one (``min_max_scale``)."""

    config_model = MinMaxScaleConfig
    step = MinMaxScaleStep
