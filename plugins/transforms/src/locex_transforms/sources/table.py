"""Tables as sources see them, whatever file holds them: batches of rows, whose columns are numbers or words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from locex.api import Array
from locex_transforms.sources.columns import Columns

FLOAT32_MAX = float(np.finfo(np.float32).max)


class TableBatch(Protocol):
    """Some rows of a table."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def numbers(self, positions: Sequence[int], *, missing: bool) -> Array:
        """Return float64 of shape (rows, columns), finite in float32.

        ``missing``: whether empty cells are NaN, else refused. Raise `DataUnavailable` naming row and column.
        """

    def words(self, position: int, length: int | None = None) -> Array:
        """Return one column as words, shape (rows,), cut to ``length``; an empty cell is the empty word."""

    def where(self, mask: Array) -> TableBatch:
        """Return the rows of a mask alone, shape (rows,)."""


class Table(Protocol):
    """One open file."""

    columns: Columns

    def batches(self, positions: Sequence[int], rows: int | None = None) -> Iterator[TableBatch]:
        """Return all rows, in order, at most ``rows`` at once; only the given columns can be asked for."""

    def integers(self, positions: Sequence[int]) -> bool | None:
        """Tell whether all of the columns hold integers by their type; None where the file tells no types."""
