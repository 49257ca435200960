"""The transformation ``basic_norm``: (x − mean) / std, as float32."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, field_validator, model_validator

from locex.api import Array, Dataset
from locex.schemas.data_format import TensorFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideStep, as_float32, scaled

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT32_TINY = float(np.finfo(np.float32).tiny)


class BasicNormConfig(PluginConfig):
    """Mean and standard deviation, each one number for all or one per channel."""

    mean: list[Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX)]] = Field(
        default=[0.0], min_length=1, description="What is subtracted: one number, or one per channel."
    )
    std: list[Annotated[float, Field(gt=0, le=FLOAT32_MAX)]] = Field(
        default=[1.0], min_length=1, description="What is divided by, above 0: one number, or one per channel."
    )
    axis: int = Field(
        default=-1, description="The axis of channels within an example, negative from the end; for lists only."
    )

    @field_validator("std")
    @classmethod
    def _representable(cls, value: list[float]) -> list[float]:
        if min(value) < FLOAT32_TINY:
            raise ValueError(f"std must be at least {FLOAT32_TINY:.3g}, the smallest normal float32")
        return value

    @model_validator(mode="after")
    def _same_channels(self) -> BasicNormConfig:
        if 1 < len(self.mean) != len(self.std) > 1:
            raise ValueError(f"mean has {len(self.mean)} channels, std {len(self.std)}; give as many, or one number")
        return self


class BasicNormStep(SideStep):
    """Scales ``x``; see `BasicNormConfig`."""

    name = "basic_norm"

    def __init__(self, config: BasicNormConfig) -> None:
        super().__init__()
        self._mean = np.asarray(config.mean)
        self._std = np.asarray(config.std)
        self._axis = config.axis
        self._channels = max(len(config.mean), len(config.std))

    def changed(self, array: Array) -> Array:
        """Return float32 of the same shape; types of more than 16 bits are computed in their own precision."""
        return scaled(array, *self._statistics(array.ndim - 1))

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return a normalized float32 format; raise `ValueError` for words, or channels that the format lacks."""
        self.need_numbers(kind, tensor)
        if self._channels > 1:
            rank = len(tensor.size)
            if not -rank <= self._axis < rank or tensor.size[self._axis] != self._channels:
                raise ValueError(
                    f"basic_norm has {self._channels} channels and needs a size with {self._channels} at axis "
                    f"{self._axis}, but x {kind!r} has size {tensor.size}"
                )
        return tensor.model_copy(update={"dtype": "float32", "normalized": True})

    def inverse_data(self, data: Dataset) -> Dataset:
        """Return ``x`` as it was before, as float32 and to within it."""
        mean, std = self._statistics(data.x.ndim - 1)
        return self.replaced(data, as_float32(data.x * std + mean))

    def _statistics(self, rank: int) -> tuple[Array, Array]:
        """Return mean and deviation, float64, along the axis of channels."""
        return self._along(self._mean, rank), self._along(self._std, rank)

    def _along(self, values: Array, rank: int) -> Array:
        shape = [1] * rank
        if len(values) > 1:
            shape[self._axis] = len(values)
        return values.reshape(shape)


class BasicNorm(StepPlugin):
    """(x - mean) / std, as float32 (``basic_norm``)."""

    config_model = BasicNormConfig
    step = BasicNormStep
