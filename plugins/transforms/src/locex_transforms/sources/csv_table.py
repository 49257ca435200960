"""CSV files, read in batches, with errors that name line and column."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path

import numpy as np

from locex.api import Array
from locex.errors import DataUnavailable
from locex_transforms.sources.columns import Columns
from locex_transforms.sources.table import FLOAT32_MAX

CELLS = 2**18
"""Cells that are read at once."""
Row = tuple[int, list[str]]


@dataclass(frozen=True, slots=True)
class CsvBatch:
    """Rows with their line numbers."""

    rows: list[Row]
    columns: Columns

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def numbers(self, positions: Sequence[int], *, missing: bool) -> Array:
        """Return float64 of shape (rows, columns); see `locex_transforms.sources.table.TableBatch`."""
        try:
            values = np.array([[cells[position] for position in positions] for _, cells in self.rows], np.float64)
            if (np.abs(values) <= FLOAT32_MAX).all():  # false for NaN
                return values.reshape(len(self.rows), len(positions))
        except ValueError:
            pass
        numbers = np.array(
            [[self._number(cells[one], line, one, missing=missing) for one in positions] for line, cells in self.rows]
        )
        return numbers.reshape(len(self.rows), len(positions))

    def words(self, position: int, length: int | None = None) -> Array:
        """Return one column as words."""
        return np.array([cells[position][:length] for _, cells in self.rows], np.str_)

    def where(self, mask: Array) -> CsvBatch:
        """Return the rows of a mask alone."""
        return self if mask.all() else CsvBatch(list(compress(self.rows, mask.tolist())), self.columns)

    def _number(self, cell: str, line: int, position: int, *, missing: bool) -> float:
        if missing and cell.strip().lower() in {"", "nan", "na", "null"}:
            return float("nan")
        try:
            value = float(cell)
        except ValueError:
            value = float("nan")
        if abs(value) <= FLOAT32_MAX:  # false for NaN
            return value
        raise DataUnavailable(
            f"{self.columns.file!r} line {line}, column {self.columns.names[position]!r}: {cell[:40]!r} is not a "
            "finite float32 number",
            remedy="fill or drop empty cells (or set missing), encode words, and scale values too large for float32",
        )


class CsvTable:
    """One CSV file."""

    def __init__(self, path: Path, delimiter: str, *, header: bool) -> None:
        self._path, self._delimiter, self._header = path, delimiter, header
        with self._reading() as rows:
            first = next(rows, None)
        if first is None:
            raise DataUnavailable(f"{path.name!r} is empty", remedy="add examples to the file")
        names = first[1] if header else [str(position) for position in range(len(first[1]))]
        self.columns = Columns(path.name, names, named=header)

    def batches(
        self,
        positions: Sequence[int],  # noqa: ARG002 -- rows are read whole
        rows: int | None = None,
    ) -> Iterator[CsvBatch]:
        """Return all rows."""
        most = max(1, CELLS // len(self.columns.names))
        size = min(rows or most, most)
        with self._reading() as lines:
            if self._header:
                next(lines)
            while batch := list(islice(lines, size)):
                self._check_widths(batch)
                yield CsvBatch(batch, self.columns)

    def integers(self, positions: Sequence[int]) -> bool | None:  # noqa: ARG002 -- the Protocol's signature
        """Text tells no types."""
        return None

    @contextmanager
    def _reading(self) -> Iterator[Iterator[Row]]:
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as stream:
                reader = csv.reader(stream, delimiter=self._delimiter, strict=True)
                yield ((reader.line_num, row) for row in reader if row)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataUnavailable(
                f"{self._path.name!r} is not a CSV file that can be read: {error}", remedy="write it as UTF-8 text"
            ) from error

    def _check_widths(self, batch: list[Row]) -> None:
        width = len(self.columns.names)
        for line, cells in batch:
            if len(cells) != width:
                raise DataUnavailable(
                    f"{self._path.name!r} line {line} has {len(cells)} columns instead of {width}",
                    remedy="correct the line, or the delimiter of the data source",
                )
