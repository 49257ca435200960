"""The transformation ``expansion``: a new axis of size 1 in every example."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from locex.api import Array, Dataset
from locex.schemas.data_format import TensorFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideStep


class ExpansionConfig(PluginConfig):
    """Where the axis goes."""

    axis: int = Field(
        default=-1,
        description="Where the new axis stands within an example, as in numpy.expand_dims; negative from the end.",
    )
    side: Literal["x", "y"] = Field(default="x", description="What is expanded: the inputs (x) or the targets (y).")


class ExpansionStep(SideStep):
    """Inserts an axis into the examples of one side."""

    name = "expansion"

    def __init__(self, config: ExpansionConfig) -> None:
        super().__init__(config.side)
        self._axis = config.axis

    def changed(self, array: Array) -> Array:
        """Return a view with the new axis; raise `ValueError` where an example has no such place."""
        return np.expand_dims(array, 1 + self._place(array.ndim - 1, f"shape {array.shape[1:]}"))

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the size with a 1 inserted; raise `ValueError` where it has no such place."""
        size = list(tensor.size)
        size.insert(self._place(len(size), f"size {tensor.size} ({kind})"), 1)
        return tensor.model_copy(update={"size": size})

    def inverse_data(self, data: Dataset) -> Dataset:
        """Return views without the axis."""
        array = getattr(data, self.side)
        return self.replaced(data, array.squeeze(1 + self._place(array.ndim - 2, f"shape {array.shape[1:]}")))

    def _place(self, rank: int, what: str) -> int:
        if not -(rank + 1) <= self._axis <= rank:
            raise ValueError(
                f"expansion at axis {self._axis} needs examples with more axes: {self.side} has {what}, "
                f"which takes {-(rank + 1)} to {rank}"
            )
        return self._axis % (rank + 1)


class Expansion(StepPlugin):
    """A new axis of size 1 in every example (``expansion``)."""

    config_model = ExpansionConfig
    step = ExpansionStep
