"""What sources of plain arrays share: four names, read some examples at a time."""

from __future__ import annotations

import math
from abc import abstractmethod
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, cast

import numpy as np

from locex.api import Array, Dataset
from locex.errors import DataUnavailable
from locex_transforms.batches import rows_of
from locex_transforms.sources.batched import BatchedSource, Batches
from locex_transforms.sources.examples import check_alike, check_examples
from locex_transforms.sources.filters import chosen, values_in


class Stored(Protocol):
    """An array on the disk: its header at once, its examples in slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """All sizes, that of the axis of examples first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def __getitem__(self, rows: slice, /) -> Array:
        """Return some examples; slices are asked for in order."""


class ArraysSource(BatchedSource):
    """Named arrays: ``x`` and ``y`` for training and, perhaps, for testing."""

    @abstractmethod
    def opened(self, part: str) -> AbstractContextManager[tuple[Stored, Stored]]:
        """Open the arrays of ``train`` or ``test``; raise `DataUnavailable` for those that cannot be used."""

    def probe(self) -> Dataset:
        """Return no examples, with the shapes and types that the headers tell."""
        with self.opened("train") as train:
            data = _checked(*train)
            if self.has_test():
                with self.opened("test") as test:
                    check_alike(data, _checked(*test), "training and test arrays")
            return Dataset(*(np.empty((0, *one.shape[1:]), one.dtype) for one in train))

    def batches(self, part: str) -> Batches:
        """Return the examples in order, filtered."""
        with self.opened(part) as (x, y):
            _checked(x, y)
            rows = self.rows(x, y)
            for begin in range(0, len(x), rows):
                batch = (np.asarray(x[begin : begin + rows]), np.asarray(y[begin : begin + rows]))
                mask = chosen(self._options.filters, len(batch[0]), partial(values_in, *batch))
                yield batch if mask.all() else (batch[0][mask], batch[1][mask])

    def rows(self, x: Stored, y: Stored) -> int:
        """Return how many examples are read at once."""
        return rows_of(example_bytes(x) + example_bytes(y))


def example_bytes(array: Stored) -> int:
    """Return the bytes of one example."""
    return math.prod(array.shape[1:]) * array.dtype.itemsize


def check_numbers(name: str, array: Stored, *, text: bool = False) -> None:
    """Raise `DataUnavailable` unless an array holds native numbers, or texts where they may stand, of examples."""
    if array.dtype.kind not in ("biufU" if text else "biuf") or not array.dtype.isnative or not array.shape:
        raise DataUnavailable(
            f"{name!r} holds {array.dtype.str} of shape {array.shape}",
            remedy="save numbers of this machine's byte order with an axis of examples",
        )


def _checked(x: Stored, y: Stored) -> Dataset:
    data = Dataset(cast("Array", x), cast("Array", y))  # headers alone are looked at
    check_examples(data, "the arrays")
    return data
