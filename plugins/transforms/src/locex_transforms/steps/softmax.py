"""The transformation ``softmax``: outputs that sum to 1."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideConfig, SideStep

VALUES = 2**17
"""Values that are worked on at once: they stay in the processor's caches."""


class SoftmaxConfig(SideConfig):
    """Along which axis."""

    axis: int = Field(default=-1, description="The axis of classes within an example.")


class SoftmaxStep(SideStep):
    """Turns logits into probabilities; see `SoftmaxConfig`."""

    name = "softmax"

    def __init__(self, config: SoftmaxConfig) -> None:
        super().__init__(config.side)
        self._axis = config.axis

    def changed(self, array: Array) -> Array:
        """Return float32 of the same shape."""
        axis = 1 + self.axis(self._axis, array.shape[1:])
        result = np.empty(array.shape, np.float32)
        rows = max(1, VALUES * len(array) // max(1, array.size))
        for begin in range(0, len(array), rows):
            part = array[begin : begin + rows]
            scores = part.astype(np.result_type(array.dtype, np.float32))
            scores -= scores.max(axis, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis, keepdims=True)
            result[begin : begin + rows] = scores
        return result

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the same size as float32."""
        self.need_numbers(kind, tensor)
        if tensor.size[self.axis(self._axis, tensor.size)] == 0:
            raise ValueError(f"softmax needs outputs, but {self.side} {kind!r} has size {tensor.size}")
        return tensor.model_copy(update={"dtype": "float32", "normalized": True})


class Softmax(StepPlugin):
    """Outputs that sum to 1 (``softmax``)."""

    config_model = SoftmaxConfig
    step = SoftmaxStep
