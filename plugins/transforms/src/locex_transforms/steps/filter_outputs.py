"""The transformation ``filter_outputs``: some of the outputs, weak ones as 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field, model_validator

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideConfig, SideStep


class FilterOutputsConfig(SideConfig):
    """Which outputs stay."""

    outputs: list[int] | None = Field(
        default=None, min_length=1, description="Positions along the axis that stay, in this order; absent: all."
    )
    threshold: float | None = Field(default=None, description="Values below it become 0; absent: none does.")
    axis: int = Field(default=-1, description="The axis of outputs within an example.")

    @model_validator(mode="after")
    def _something(self) -> FilterOutputsConfig:
        if self.outputs is None and self.threshold is None:
            raise ValueError("filter_outputs needs outputs, threshold, or both")
        return self


class FilterOutputsStep(SideStep):
    """Keeps outputs; the number of examples stays. See `FilterOutputsConfig`."""

    name = "filter_outputs"

    def __init__(self, config: FilterOutputsConfig) -> None:
        super().__init__(config.side)
        self._config = config

    def changed(self, array: Array) -> Array:
        """Return a new array of the same type."""
        positions = self._positions(array.shape[1:])
        if positions is not None:
            array = np.take(array, positions, 1 + self.axis(self._config.axis, array.shape[1:]))
        if self._config.threshold is None:
            return array
        return np.where(array < self._config.threshold, array.dtype.type(0), array)

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the size with as many outputs as stay."""
        self.need_numbers(kind, tensor)
        positions = self._positions(tensor.size)
        size = list(tensor.size)
        if positions is not None:
            size[self.axis(self._config.axis, size)] = len(positions)
        return tensor.model_copy(update={"size": size})

    def _positions(self, sizes: Sequence[int]) -> list[int] | None:
        wanted = self._config.outputs
        if wanted is None:
            return None
        have = sizes[self.axis(self._config.axis, sizes)]
        if not all(-have <= position < have for position in wanted):
            raise ValueError(f"filter_outputs keeps {wanted}, but {self.side} has size {list(sizes)}")
        return wanted


class FilterOutputs(StepPlugin):
    """Some of the outputs (``filter_outputs``)."""

    config_model = FilterOutputsConfig
    step = FilterOutputsStep
