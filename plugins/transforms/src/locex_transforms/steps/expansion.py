"""The transformation ``expansion``: a new axis of size 1 in every example."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from locex.api import Array, Dataset, Needs
from locex.schemas.data_format import DataFormat, SideFormat, TensorFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.steps.plugin import StepPlugin


class ExpansionConfig(PluginConfig):
    """Where the axis goes."""

    axis: int = Field(
        default=-1,
        description="Where the new axis stands within an example, as in numpy.expand_dims; negative from the end.",
    )
    side: Literal["x", "y"] = Field(default="x", description="What is expanded: the inputs (x) or the targets (y).")


class ExpansionStep:
    """Inserts an axis into the examples of one side."""

    needs = Needs()

    def __init__(self, config: ExpansionConfig) -> None:
        self._axis = config.axis
        self._side = config.side

    def transform_data(self, data: Dataset) -> Dataset:
        """Return views with the new axis; raise `ValueError` where an example has no such place."""
        if self._side == "x":
            return Dataset(self._expanded(data.x), data.y)
        return Dataset(data.x, self._expanded(data.y))

    def transform_format(self, data_format: DataFormat) -> DataFormat:
        """Return the format with a 1 inserted; raise `ValueError` where a size has no such place."""
        side: SideFormat = getattr(data_format, self._side)
        kinds = {kind: self._grown(kind, tensor) for kind, tensor in side.data_types.items()}
        return data_format.model_copy(update={self._side: side.model_copy(update={"data_types": kinds})})

    def inverse_data(self, data: Dataset) -> Dataset:
        """Return views without the axis."""
        array = getattr(data, self._side)
        back = array.squeeze(1 + self._place(array.ndim - 2, f"shape {array.shape[1:]}"))
        return Dataset(back, data.y) if self._side == "x" else Dataset(data.x, back)

    def _expanded(self, array: Array) -> Array:
        return np.expand_dims(array, 1 + self._place(array.ndim - 1, f"shape {array.shape[1:]}"))

    def _grown(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        size = list(tensor.size)
        size.insert(self._place(len(size), f"size {tensor.size} ({kind})"), 1)
        return tensor.model_copy(update={"size": size})

    def _place(self, rank: int, what: str) -> int:
        if not -(rank + 1) <= self._axis <= rank:
            raise ValueError(
                f"expansion at axis {self._axis} needs examples with more axes: {self._side} has {what}, "
                f"which takes {-(rank + 1)} to {rank}"
            )
        return self._axis % (rank + 1)


class Expansion(StepPlugin):
    """A new axis of size 1 in every example (``expansion``)."""

    config_model = ExpansionConfig
    step = ExpansionStep
