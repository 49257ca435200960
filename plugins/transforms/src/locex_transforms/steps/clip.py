"""The transformation ``clip``: values outside of bounds become the nearest bound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideConfig, SideStep


class ClipConfig(SideConfig):
    """The bounds."""

    min: float | None = Field(default=None, description="The least value that stays; absent: no lower bound.")
    max: float | None = Field(default=None, description="The greatest value that stays; absent: no upper bound.")

    @model_validator(mode="after")
    def _bounds(self) -> ClipConfig:
        if self.min is None and self.max is None:
            raise ValueError("clip needs min, max, or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min is {self.min}, above max, {self.max}")
        return self


class ClipStep(SideStep):
    """Clips one side; the type stays, NaN too. See `ClipConfig`."""

    name = "clip"

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config.side)
        self._low = -math.inf if config.min is None else config.min
        self._high = math.inf if config.max is None else config.max

    def changed(self, array: Array) -> Array:
        """Return a new array; for integers the bounds are rounded inwards."""
        bounds = _within if array.dtype.kind in "iu" else _of_floats
        low, high = (array.dtype.type(bound) for bound in bounds(self._low, self._high, array.dtype))
        clipped: Array = np.clip(array, low, high)
        return clipped

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the format unchanged; raise `ValueError` for words and booleans, and for integers out of reach."""
        self.need_numbers(kind, tensor, "iuf")
        if tensor.dtype is not None and np.dtype(tensor.dtype).kind in "iu":
            _within(self._low, self._high, np.dtype(tensor.dtype))
        return tensor


def _of_floats(low: float, high: float, dtype: np.dtype[Any]) -> list[float]:
    limit = float(np.finfo(dtype).max)
    return [bound if math.isinf(bound) else min(max(bound, -limit), limit) for bound in (low, high)]


def _within(low: float, high: float, dtype: np.dtype[Any]) -> list[int]:
    limits = np.iinfo(dtype)
    least = limits.min if low <= limits.min else math.ceil(low)
    greatest = limits.max if high >= limits.max else math.floor(high)
    if not limits.min <= least <= greatest <= limits.max:
        raise ValueError(f"clip has no {dtype} between {low} and {high}")
    return [least, greatest]


class Clip(StepPlugin):
    """Values held within bounds (``clip``)."""

    config_model = ClipConfig
    step = ClipStep
