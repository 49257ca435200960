"""The transformations ``transpose`` and ``img_transpose``: axes of every example in another order."""

from __future__ import annotations

import numpy as np
from pydantic import Field, field_validator

from locex.api import Array, Dataset
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideConfig, SideStep


class TransposeConfig(SideConfig):
    """The new order."""

    axes: list[int] = Field(
        default=[2, 0, 1],
        min_length=1,
        description="The axes of an example, from 0, in their new order; [2, 0, 1] puts channels first.",
    )

    @field_validator("axes")
    @classmethod
    def _permutation(cls, value: list[int]) -> list[int]:
        if sorted(value) != list(range(len(value))):
            raise ValueError(f"must name every axis from 0 to {len(value) - 1} once")
        return value


class TransposeStep(SideStep):
    """Transposes examples; see `TransposeConfig`."""

    name = "transpose"

    def __init__(self, config: TransposeConfig) -> None:
        super().__init__(config.side)
        self._axes = config.axes

    def changed(self, array: Array) -> Array:
        """Return a view; nothing is copied."""
        self._check(array.ndim - 1, list(array.shape[1:]))
        return np.transpose(array, [0, *(axis + 1 for axis in self._axes)])

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:  # noqa: ARG002 -- the base's signature
        """Return the size in its new order."""
        self._check(len(tensor.size), tensor.size)
        return tensor.model_copy(update={"size": [tensor.size[axis] for axis in self._axes]})

    def inverse_data(self, data: Dataset) -> Dataset:
        """Return the data in the order that it had before."""
        back = TransposeStep(TransposeConfig(side=self.side, axes=[int(axis) for axis in np.argsort(self._axes)]))
        return back.transform_data(data)

    def _check(self, rank: int, size: list[int]) -> None:
        if rank != len(self._axes):
            raise ValueError(f"transpose orders {len(self._axes)} axes, but {self.side} has size {size}")


class Transpose(StepPlugin):
    """Axes of every example in another order (``transpose``, once ``img_transpose``)."""

    config_model = TransposeConfig
    step = TransposeStep
