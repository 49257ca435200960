"""What most steps share: they change one side, array by array and size by size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
from pydantic import Field

from locex.api import Array, Dataset, Needs
from locex.schemas.data_format import DataFormat, TensorFormat
from locex.schemas.plugin import PluginConfig

NUMBERS = "biuf"
"""NumPy's kinds: bool, int, uint, float."""


class SideConfig(PluginConfig):
    """Which side a step changes."""

    side: Literal["x", "y"] = Field(default="x", description="What is changed: the inputs (x) or the targets (y).")


class SideStep(ABC):
    """Changes one side; the other passes as it is. Subclasses say what becomes of an array and of its format."""

    needs = Needs()
    name: str

    def __init__(self, side: str = "x") -> None:
        self.side = side

    def transform_data(self, data: Dataset) -> Dataset:
        """Return the data with one side changed."""
        return self.replaced(data, self.changed(getattr(data, self.side)))

    def transform_format(self, data_format: DataFormat) -> DataFormat:
        """Return the format with every kind of one side changed; raise `ValueError` for what the step cannot take."""
        side = getattr(data_format, self.side)
        kinds = self.kinds(side.data_types)
        return data_format.model_copy(update={self.side: side.model_copy(update={"data_types": kinds})})

    def kinds(self, given: dict[str, TensorFormat]) -> dict[str, TensorFormat]:
        """Return the formats by kind; kinds keep their names unless a step says otherwise."""
        return {kind: self.formed(kind, tensor) for kind, tensor in given.items()}

    def replaced(self, data: Dataset, array: Array) -> Dataset:
        """Return the data with another array on the step's side."""
        return Dataset(array, data.y) if self.side == "x" else Dataset(data.x, array)

    @abstractmethod
    def changed(self, array: Array) -> Array:
        """Return the new array of shape (n, …)."""

    @abstractmethod
    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the new format of one kind; raise `ValueError` where the step cannot take it."""

    def axis(self, axis: int, sizes: Any) -> int:
        """Return an axis within examples counted from 0; raise `ValueError` where they have no such axis."""
        rank = len(sizes)
        if not -rank <= axis < rank:
            raise ValueError(f"{self.name} acts on axis {axis}, but {self.side} has size {list(sizes)}")
        return axis % rank

    def need_numbers(self, kind: str, tensor: TensorFormat, kinds: str = NUMBERS) -> None:
        """Raise `ValueError` where the type is known and is none of ``kinds`` (letters of NumPy's)."""
        if tensor.dtype is not None and np.dtype(tensor.dtype).kind not in kinds:
            wanted = "numbers" if "f" in kinds else "integers"
            raise ValueError(f"{self.name} needs {wanted}, but {self.side} {kind!r} has dtype {tensor.dtype}")

    def one_kind(self, given: dict[str, TensorFormat]) -> tuple[str, TensorFormat]:
        """Return the only kind of the side; raise `ValueError` where there are several."""
        if len(given) != 1:
            raise ValueError(f"{self.name} needs one kind of {self.side}, but the format has {sorted(given)}")
        ((kind, tensor),) = given.items()
        return kind, tensor


def scaled(array: Array, shift: Array, width: Array) -> Array:
    """Return (array - shift) / width as float32; types of more than 16 bits are computed in their own precision."""
    dtype = np.result_type(array.dtype, np.float32)
    result = np.subtract(array, shift.astype(dtype), dtype=dtype)
    np.divide(result, width.astype(dtype), out=result)
    return as_float32(result)


def as_float32(array: Array) -> Array:
    """Return the array as float32, itself where it is that already."""
    return array.astype(np.float32, copy=False)
