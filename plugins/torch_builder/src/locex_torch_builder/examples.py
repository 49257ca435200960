"""Examples as tensors, batch by batch: placed whole where they fit, else read from the arrays for each batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from locex.api import Augment, Dataset
from locex.artefacts.batches import one_by_one
from locex.errors import FormatMismatch

if TYPE_CHECKING:
    from locex.api import Array

COPIED = 2**28
"""Bytes up to which memory-mapped data may be copied into memory, where tensors cannot share their memory."""

Batch = tuple[Tensor, Tensor]
Targets = Callable[[Tensor], Tensor]
"""Makes targets of what the data has; raises `FormatMismatch` where they do not fit."""


class Examples(Protocol):
    """Inputs and targets on the model's device."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def batch(self, index: Tensor, generator: Callable[[], np.random.Generator]) -> Batch:
        """Return the examples of the indices; ``generator`` is asked for where something is drawn."""

    def in_order(self, size: int) -> Iterator[Batch]:
        """Yield batches of a size in the order of the data."""

    def augment_one_by_one(self) -> None:
        """Let no augmentation see two examples at once."""


def examples_of(data: Dataset, targets: Targets, device: torch.device, augment: Augment | None = None) -> Examples:
    """Return the examples of a data set, or raise `FormatMismatch`."""
    if len(data.x) != len(data.y):
        raise FormatMismatch(
            f"{len(data.x)} inputs do not go with {len(data.y)} targets",
            remedy="check the data and its transformations",
        )
    if augment is not None or not (_placeable(data.x, device) and _placeable(data.y, device)):
        return ReadExamples(data, targets, device, augment)
    x, y = as_tensor(data.x), as_tensor(data.y)
    return PlacedExamples(x.to(device), (targets(y) if len(y) else y).to(device))


class PlacedExamples:
    """Examples that are tensors on the device."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        """Take inputs and targets of equal length."""
        self._x, self._y = x, y

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._x)

    def batch(self, index: Tensor, generator: Callable[[], np.random.Generator]) -> Batch:  # noqa: ARG002 -- the Protocol's
        """Return copies of the examples."""
        index = index.to(self._x.device)
        return self._x.index_select(0, index), self._y.index_select(0, index)

    def in_order(self, size: int) -> Iterator[Batch]:
        """Yield views."""
        return zip(torch.split(self._x, size), torch.split(self._y, size), strict=True)

    def augment_one_by_one(self) -> None:
        """Do nothing: these examples are not augmented."""


class ReadExamples:
    """Examples that are read, and augmented, for each batch anew."""

    def __init__(self, data: Dataset, targets: Targets, device: torch.device, augment: Augment | None) -> None:
        """Take arrays of equal length."""
        self._data = data
        self._targets = targets
        self._device = device
        self._augment = augment

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._data.x)

    def batch(self, index: Tensor, generator: Callable[[], np.random.Generator]) -> Batch:
        """Return the examples as ``augment`` makes them."""
        rows = index.numpy()
        batch = Dataset(self._data.x[rows], self._data.y[rows])
        if self._augment is not None:
            batch = self._augment(batch, generator())
        return self._tensors(batch)

    def in_order(self, size: int) -> Iterator[Batch]:
        """Yield batches as the data has them."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield self._tensors(Dataset(self._data.x[rows], self._data.y[rows]))

    def augment_one_by_one(self) -> None:
        """Augment each example of a batch alone."""
        self._augment = self._augment and one_by_one(self._augment)

    def _tensors(self, batch: Dataset) -> Batch:
        return as_tensor(batch.x).to(self._device), self._targets(as_tensor(batch.y)).to(self._device)


def as_tensor(array: Array) -> Tensor:
    """Return the array as a tensor that shares its memory where possible; float64 becomes float32."""
    contiguous = np.ascontiguousarray(array, dtype=np.float32 if array.dtype == np.float64 else None)
    with warnings.catch_warnings():  # memory-mapped data is read-only, and never written here
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        # reshape: ascontiguousarray makes scalars one-dimensional
        return torch.from_numpy(contiguous.reshape(array.shape))


def _placeable(array: Array, device: torch.device) -> bool:
    """Whether the whole array may be a tensor on the device."""
    if device.type == "cuda" and array.nbytes > torch.cuda.mem_get_info(device)[0] // 4:
        return False
    shared = array.dtype != np.float64 and array.flags.c_contiguous
    return shared or array.nbytes <= COPIED or not _is_mapped(array)


def _is_mapped(array: Array | None) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False
