"""What augmentations share: they act on training batches only, with the draws of a generator that they are given."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from locex.api import Array, Dataset, Needs
from locex.schemas.data_format import DataFormat


class RandomStep(ABC):
    """Changes ``x`` of training batches; shape and type stay, so that no format changes."""

    needs = Needs()

    def transform_data(self, data: Dataset) -> Dataset:
        """Return the data as they are: what is drawn is drawn per batch."""
        return data

    def transform_batch(self, batch: Dataset, generator: np.random.Generator) -> Dataset:
        """Return the batch with ``x`` changed by draws from ``generator``."""
        return Dataset(self.drawn(batch.x, generator), batch.y)

    def transform_format(self, data_format: DataFormat) -> DataFormat:
        """Return the format as it is; raise `ValueError` for what the step cannot take."""
        for kind, tensor in data_format.x.data_types.items():
            self.check(kind, tensor.size, tensor.dtype)
        return data_format

    @abstractmethod
    def drawn(self, x: Array, generator: np.random.Generator) -> Array:
        """Return a new array of the same shape and type."""

    @abstractmethod
    def check(self, kind: str, size: list[int], dtype: str | None) -> None:
        """Raise `ValueError` for a format that the step cannot take."""


def need_axes(name: str, axes: list[int], kind: str, size: list[int]) -> None:
    """Raise `ValueError` unless examples have all of the axes."""
    if not all(-len(size) <= axis < len(size) for axis in axes):
        raise ValueError(f"{name} acts on the axes {axes}, but x {kind!r} has size {size}")
