"""What augmentations share: they act on training batches only, with the draws of a generator that they are given."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from locex.api import Array, Dataset
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.side import SideStep


class RandomStep(SideStep):
    """Changes ``x`` of training batches; shape and type stay, so that no format changes."""

    def transform_batch(self, batch: Dataset, generator: np.random.Generator) -> Dataset:
        """Return the batch with ``x`` changed by draws from ``generator``."""
        return self.replaced(batch, self.drawn(batch.x, generator))

    @abstractmethod
    def drawn(self, x: Array, generator: np.random.Generator) -> Array:
        """Return a new array of the same shape and type."""

    def changed(self, array: Array) -> Array:
        """Return the array as it is: what is drawn is drawn per batch."""
        return array

    def need_axes(self, axes: list[int], kind: str, tensor: TensorFormat) -> None:
        """Raise `ValueError` unless examples have all of the axes."""
        size = tensor.size
        if not all(-len(size) <= axis < len(size) for axis in axes):
            raise ValueError(f"{self.name} acts on the axes {axes}, but x {kind!r} has size {size}")
