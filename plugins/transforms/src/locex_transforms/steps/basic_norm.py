"""The transformation ``basic_norm``: (x − mean) / std, as float32."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from locex.api import Array, Dataset, Needs
from locex.schemas.data_format import DataFormat, TensorFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import NUMBERS

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


class BasicNormStep:
    """Scales ``x``; see `BasicNormConfig`."""

    needs = Needs()

    def __init__(self, config: BasicNormConfig) -> None:
        self._mean = np.asarray(config.mean)
        self._std = np.asarray(config.std)
        self._axis = config.axis
        self._channels = max(len(config.mean), len(config.std))

    def transform_data(self, data: Dataset) -> Dataset:
        """Return float32 ``x`` of the same shape; types of more than 16 bits are computed in their own precision."""
        rank = data.x.ndim - 1
        dtype = np.result_type(data.x.dtype, np.float32)
        x = np.subtract(data.x, self._along(self._mean, rank, dtype), dtype=dtype)
        np.divide(x, self._along(self._std, rank, dtype), out=x)
        return Dataset(x.astype(np.float32, copy=False), data.y)

    def transform_format(self, data_format: DataFormat) -> DataFormat:
        """Return ``x`` as normalized float32; raise `ValueError` for words, or channels that the format lacks."""
        kinds = {kind: self._scaled(kind, tensor) for kind, tensor in data_format.x.data_types.items()}
        return data_format.model_copy(update={"x": data_format.x.model_copy(update={"data_types": kinds})})

    def inverse_data(self, data: Dataset) -> Dataset:
        """Return ``x`` as it was before, as float32 and to within it."""
        rank = data.x.ndim - 1
        mean, std = (self._along(values, rank, np.dtype(np.float64)) for values in (self._mean, self._std))
        return Dataset((data.x * std + mean).astype(np.float32), data.y)

    def _along(self, values: Array, rank: int, dtype: np.dtype[Any]) -> Array:
        shape = [1] * rank
        if len(values) > 1:
            shape[self._axis] = len(values)
        return values.astype(dtype).reshape(shape)

    def _scaled(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        if tensor.dtype is not None and np.dtype(tensor.dtype).kind not in NUMBERS:
            raise ValueError(f"basic_norm needs numbers, but x {kind!r} has dtype {tensor.dtype}")
        if self._channels > 1:
            rank = len(tensor.size)
            if not -rank <= self._axis < rank or tensor.size[self._axis] != self._channels:
                raise ValueError(
                    f"basic_norm has {self._channels} channels and needs a size with {self._channels} at axis "
                    f"{self._axis}, but x {kind!r} has size {tensor.size}"
                )
        return tensor.model_copy(update={"dtype": "float32", "normalized": True})


class BasicNorm(StepPlugin):
    """(x - mean) / std, as float32 (``basic_norm``)."""

    config_model = BasicNormConfig
    step = BasicNormStep
