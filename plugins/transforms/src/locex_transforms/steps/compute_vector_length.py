"""The transformation ``compute_vector_length``: Euclidean lengths along an axis."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideConfig, SideStep, as_float32


class ComputeVectorLengthConfig(SideConfig):
    """Where the vectors' components stand."""

    axis: int = Field(default=-1, description="The axis of components within an example; it vanishes.")


class ComputeVectorLengthStep(SideStep):
    """Replaces vectors by their lengths; see `ComputeVectorLengthConfig`."""

    name = "compute_vector_length"

    def __init__(self, config: ComputeVectorLengthConfig) -> None:
        super().__init__(config.side)
        self._axis = config.axis

    def changed(self, array: Array) -> Array:
        """Return float32 without the axis; summed in float64, so that squares do not overflow."""
        axis = 1 + self.axis(self._axis, array.shape[1:])
        return as_float32(np.sqrt(np.square(array, dtype=np.float64).sum(axis)))

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the size without the axis."""
        self.need_numbers(kind, tensor)
        size = list(tensor.size)
        del size[self.axis(self._axis, size)]
        return tensor.model_copy(update={"size": size, "dtype": "float32"})


class ComputeVectorLength(StepPlugin):
    """Euclidean lengths of vectors (``compute_vector_length``)."""

    config_model = ComputeVectorLengthConfig
    step = ComputeVectorLengthStep
