"""What scalers share: a factor and a summand per feature, learned from the training split."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from pydantic import Field

from locex.api import Array, Dataset
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.side import SideConfig, SideStep, as_float32, scaled

log = logging.getLogger(__name__)


class ScalerConfig(SideConfig):
    """What has statistics of its own."""

    axis: int | None = Field(
        default=None,
        description="The axis of channels within an example, each with statistics of its own; absent: every position.",
    )


class ScalerStep(SideStep):
    """(x - low) / width, with both learned; subclasses say from what."""

    def __init__(self, config: ScalerConfig) -> None:
        super().__init__(config.side)
        self._axis = config.axis
        self._shift: Array | None = None
        self._width: Array | None = None

    def fit(self, train: Dataset) -> None:
        """Learn from the training split, chunk by chunk; raise `ValueError` for NaN or infinity."""
        array = getattr(train, self.side)
        if not len(array):
            raise ValueError(f"{self.name} learns from training examples, but there are none")
        shift, width = self.learned(array, self._pooled(array.shape[1:]))
        if not (np.isfinite(shift).all() and np.isfinite(width).all()):
            raise ValueError(f"{self.name} cannot learn from NaN or infinity in {self.side}; put impute or clip before")
        self._shift, self._width = shift, width
        log.info("%s learned: subtract %s, divide by %s", self.name, shift.ravel()[:64], width.ravel()[:64])

    def state(self) -> dict[str, Array]:
        """Return what is subtracted and what is divided by, in float64."""
        shift, width = self._statistics()
        return {"shift": shift, "width": width}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take up both; raise `ValueError` where they are not there, or not finite."""
        self._shift, self._width = finite(self.name, state, "shift"), finite(self.name, state, "width")
        if not self._width.all():
            raise ValueError(f"{self.name} would divide by 0")

    @abstractmethod
    def learned(self, array: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
        """Return what is subtracted and what is divided by, of the array reduced over ``axes``, 0 among them."""

    def changed(self, array: Array) -> Array:
        """Return float32 of the same shape; raise `ValueError` before `fit`."""
        return scaled(array, *self._statistics())

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return a normalized float32 format."""
        self.need_numbers(kind, tensor)
        if self._axis is not None:
            self.axis(self._axis, tensor.size)
        return tensor.model_copy(update={"dtype": "float32", "normalized": True})

    def inverse_data(self, data: Dataset) -> Dataset:
        """Return float32 values as they were before, to within float32."""
        shift, width = self._statistics()
        return self.replaced(data, as_float32(getattr(data, self.side) * width + shift))

    def _statistics(self) -> tuple[Array, Array]:
        if self._shift is None or self._width is None:
            raise ValueError(f"{self.name} has not learned from training data yet")
        return self._shift, self._width

    def _pooled(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if self._axis is None:
            return (0,)
        kept = 1 + self.axis(self._axis, sizes)
        return tuple(axis for axis in range(len(sizes) + 1) if axis != kept)


def finite(step: str, state: Mapping[str, Array], name: str) -> Array:
    """Return an array of a saved state in float64; raise `ValueError` where it is absent or holds NaN or infinity."""
    if name not in state:
        raise ValueError(f"{step} is restored from a state without {name}")
    array = np.asarray(state[name], np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{step} is restored from NaN or infinity in {name}")
    return array


def nonzero(width: Array) -> Array:
    """Return 1 where a width is 0: a constant feature becomes 0, not NaN."""
    return np.where(width == 0, 1.0, width)
