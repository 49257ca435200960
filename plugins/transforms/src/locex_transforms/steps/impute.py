"""The transformation ``impute``: missing values become a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from locex.api import Array, Dataset, Transform
from locex.schemas.data_format import TensorFormat
from locex_transforms.batches import batches
from locex_transforms.steps.fitted import finite
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideConfig, SideStep


class ImputeConfig(SideConfig):
    """What is missing, and what takes its place."""

    strategy: Literal["constant", "mean"] = Field(
        default="constant",
        description="constant: the field value; mean: each position's mean over the training split.",
    )
    value: float = Field(default=0.0, description="What takes the place, by the strategy constant.")
    missing: float | None = Field(
        default=None, description="A number that means missing, besides NaN: -999, say; absent: NaN alone."
    )


class ImputeStep(SideStep):
    """Fills in one number; the type stays. See `ImputeConfig`."""

    name = "impute"

    def __init__(self, config: ImputeConfig) -> None:
        super().__init__(config.side)
        self._missing = config.missing
        self._constant: float | None = config.value
        self._fill: Array | None = np.asarray(config.value)

    def changed(self, array: Array) -> Array:
        """Return a new array; raise `ValueError` before a `fit` that is needed."""
        if self._fill is None:
            raise ValueError("impute has not learned from training data yet")
        return np.where(self._absent(array), self._fill.astype(array.dtype), array)

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the format unchanged; raise `ValueError` for words, booleans, and types that lack the value."""
        self.need_numbers(kind, tensor, "iuf")
        value = self._constant
        if tensor.dtype is not None and value is not None and np.dtype(tensor.dtype).kind in "iu":
            limits = np.iinfo(tensor.dtype)
            if not (value.is_integer() and limits.min <= value <= limits.max):
                raise ValueError(f"impute cannot put {value} into {self.side} {kind!r} of dtype {tensor.dtype}")
        return tensor

    def _absent(self, array: Array) -> Array:
        absent = np.isnan(array)
        if self._missing is not None:
            absent |= array == self._missing
        return absent


class MeanImputeStep(ImputeStep):
    """Fills in the means of the training split."""

    def __init__(self, config: ImputeConfig) -> None:
        super().__init__(config)
        self._constant = self._fill = None

    def fit(self, train: Dataset) -> None:
        """Learn each position's mean over what is there; a position that is never there becomes 0."""
        array = getattr(train, self.side)
        total, count = np.zeros(array.shape[1:]), np.zeros(array.shape[1:], np.int64)
        for chunk in batches(array):
            absent = self._absent(chunk)
            total = total + np.where(absent, 0, chunk).sum(0, dtype=np.float64)
            count = count + (~absent).sum(0)
        self._fill = total / np.maximum(count, 1)

    def state(self) -> dict[str, Array]:
        """Return each position's mean, in float64."""
        if self._fill is None:
            raise ValueError("impute has not learned from training data yet")
        return {"mean": self._fill}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take up the means; raise `ValueError` where they are not there, or not finite."""
        self._fill = finite(self.name, state, "mean")


def _step(config: ImputeConfig) -> Transform:
    return MeanImputeStep(config) if config.strategy == "mean" else ImputeStep(config)


class Impute(StepPlugin):
    """Missing values as a number (``impute``)."""

    config_model = ImputeConfig
    step = staticmethod(_step)
