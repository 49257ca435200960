"""Parquet files, read in batches and only by the columns that are needed (pyarrow)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from locex.api import Array
from locex.errors import DataUnavailable
from locex_transforms.sources.columns import Columns
from locex_transforms.sources.table import FLOAT32_MAX

CELLS = 2**20
"""Cells that are read at once."""


@dataclass(frozen=True, slots=True)
class ParquetBatch:
    """Rows as an Arrow record batch of the columns asked for."""

    record: Any
    row: int
    columns: Columns

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.record.num_rows)

    def numbers(self, positions: Sequence[int], *, missing: bool) -> Array:
        """Return float64 of shape (rows, columns); see `locex_transforms.sources.table.TableBatch`."""
        values = np.empty((len(self), len(positions)))
        for number, position in enumerate(positions):
            values[:, number] = self._column(position)
        wrong = ~(np.abs(values) <= FLOAT32_MAX)
        if missing:
            wrong &= ~np.isnan(values)
        if wrong.any():
            row, number = (int(place) for place in np.argwhere(wrong)[0])
            raise DataUnavailable(
                f"{self.columns.file!r} row {self.row + row}, column {self.columns.names[positions[number]]!r}: "
                f"{values[row, number]} is not a finite float32 number",
                remedy="fill or drop missing values (or set missing), and scale values too large for float32",
            )
        return values

    def words(self, position: int, length: int | None = None) -> Array:
        """Return one column as words."""
        import pyarrow as pa

        words = self._arrow(position).cast(pa.string()).to_pylist()
        return np.array([(word or "")[:length] for word in words], np.str_)

    def where(self, mask: Array) -> ParquetBatch:
        """Return the rows of a mask alone; errors name rows of the batch's first on."""
        import pyarrow as pa

        return self if mask.all() else ParquetBatch(self.record.filter(pa.array(mask)), self.row, self.columns)

    def _arrow(self, position: int) -> Any:
        return self.record.column(self.columns.names[position])

    def _column(self, position: int) -> Array:
        import pyarrow as pa

        try:
            column = self._arrow(position).cast(pa.float64(), safe=False)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise DataUnavailable(
                f"{self.columns.file!r}: column {self.columns.names[position]!r} holds no numbers: {error}",
                remedy="leave it out of features, or give classes for words in target",
            ) from None
        values: Array = column.to_numpy(zero_copy_only=False)
        return values


class ParquetTable:
    """One Parquet file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        schema = self._open().schema_arrow
        self._types = schema.types
        self.columns = Columns(path.name, list(schema.names))

    def batches(self, positions: Sequence[int], rows: int | None = None) -> Iterator[ParquetBatch]:
        """Return all rows, of the given columns alone."""
        import pyarrow as pa

        names = [self.columns.names[position] for position in positions]
        row = 0
        try:
            most = max(1, CELLS // len(names))
            size = min(rows or most, most)
            for record in self._open().iter_batches(batch_size=size, columns=names, use_threads=False):
                yield ParquetBatch(record, row, self.columns)
                row += record.num_rows
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def integers(self, positions: Sequence[int]) -> bool | None:
        """Tell by the columns' types."""
        from pyarrow import types

        return all(types.is_integer(self._types[one]) or types.is_boolean(self._types[one]) for one in positions)

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self._path, memory_map=False, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DataUnavailable:
        return DataUnavailable(
            f"{self._path.name!r} is not a Parquet file that can be read: {error}", remedy="write it again as Parquet"
        )
