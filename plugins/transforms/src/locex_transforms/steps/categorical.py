"""The transformation ``categorical``: class indices become one-hot targets."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Array, Dataset
from locex.schemas.data_format import TensorFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideStep

INDICES = "biu"  # NumPy's kinds: bool, int, uint


class CategoricalConfig(PluginConfig):
    """The number of classes."""

    categories: int = Field(gt=0, description="The number of classes; indices are 0 to categories - 1.")


class CategoricalStep(SideStep):
    """One-hot encodes ``y``."""

    name = "categorical"

    def __init__(self, config: CategoricalConfig) -> None:
        super().__init__("y")
        self._categories = config.categories

    def changed(self, array: Array) -> Array:
        """Return float32 of shape (n, categories), from integers of shape (n,) or (n, 1).

        Raise `ValueError` for other shapes and types, and for indices outside 0 … categories - 1.
        """
        indices = self._indices(array)
        y = np.zeros((len(indices), self._categories), np.float32)
        y[np.arange(len(indices)), indices] = 1
        return y

    def kinds(self, given: dict[str, TensorFormat]) -> dict[str, TensorFormat]:
        """Return ``categorical``."""
        return {"categorical": self.formed(*self.one_kind(given))}

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the size [categories]; raise `ValueError` unless it is one class index."""
        if tensor.size not in ([], [1]):
            raise ValueError(f"categorical needs y of size [] or [1], but {kind!r} has size {tensor.size}")
        if tensor.dtype is not None and np.dtype(tensor.dtype).kind not in INDICES:
            raise ValueError(f"categorical needs integer y, but {kind!r} has dtype {tensor.dtype}")
        return tensor.model_copy(update={"size": [self._categories], "dtype": "float32"})

    def inverse_data(self, data: Dataset) -> Dataset:
        """Return the indices, int64 of shape (n,)."""
        return self.replaced(data, data.y.argmax(1).astype(np.int64, copy=False))

    def _indices(self, y: Array) -> Array:
        if y.dtype.kind not in INDICES or y.shape not in {(len(y),), (len(y), 1)}:
            raise ValueError(f"categorical needs integer y of shape (n,) or (n, 1), got {y.dtype} of shape {y.shape}")
        indices = y.reshape(len(y))
        if len(indices):
            low, high = int(indices.min()), int(indices.max())
            if low < 0 or high >= self._categories:
                raise ValueError(
                    f"categorical has {self._categories} categories, indices 0 to {self._categories - 1}, "
                    f"but y holds {low} to {high}"
                )
        return indices.astype(np.intp)


class Categorical(StepPlugin):
    """One-hot targets from class indices (``categorical``)."""

    config_model = CategoricalConfig
    step = CategoricalStep
