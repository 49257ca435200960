"""One CSV file of numbers, read with errors that name line and column."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from locex.api import Array
from locex.errors import DataUnavailable

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are read, by name or by position from 0 (negative from the end)."""

    target: Sequence[str | int]
    features: Sequence[str | int] | None


@dataclass(frozen=True, slots=True)
class Table:
    """The names of the columns read, and float64 arrays of shape (rows, features) and (rows, targets)."""

    names: list[str]
    x: Array
    y: Array


def read_table(path: Path, columns: Columns, delimiter: str, *, header: bool) -> Table:
    """Read one file; raise `DataUnavailable` for anything in it that is not a finite float32 number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            return _read(((reader.line_num, row) for row in reader if row), path.name, columns, header=header)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataUnavailable(
            f"{path.name!r} is not a CSV file that can be read: {error}", remedy="write it as UTF-8 text"
        ) from error


def _read(rows: Iterator[tuple[int, list[str]]], file: str, columns: Columns, *, header: bool) -> Table:
    first = next(rows, None)
    if first is None:
        raise DataUnavailable(f"{file!r} is empty", remedy="add examples to the file")
    names = first[1] if header else [str(position) for position in range(len(first[1]))]
    targets, features = _positions(columns, names, file, header=header)
    chosen = features + targets
    values = array("d")
    if not header:
        values.extend(_numbers(first, names, chosen, file))
    for row in rows:
        values.extend(_numbers(row, names, chosen, file))
    table = np.frombuffer(values, np.float64).reshape(-1, len(chosen))
    return Table([names[position] for position in chosen], table[:, : len(features)], table[:, len(features) :])


def _positions(columns: Columns, names: list[str], file: str, *, header: bool) -> tuple[list[int], list[int]]:
    def find(column: str | int) -> int:
        return _position(column, names, file, header=header)

    targets = _distinct(columns.target, find, file)
    if columns.features is None:
        features = [position for position in range(len(names)) if position not in targets]
    else:
        features = _distinct(columns.features, find, file)
    both = sorted(names[position] for position in set(targets) & set(features))
    if both or not features:
        what = f"columns {both} are both target and feature" if both else "no column is left as a feature"
        raise DataUnavailable(f"{file!r}: {what}", remedy="correct target and features of the data source")
    return targets, features


def _distinct(columns: Sequence[str | int], find: Callable[[str | int], int], file: str) -> list[int]:
    positions = [find(column) for column in columns]
    if len(set(positions)) < len(positions):
        raise DataUnavailable(f"{file!r}: {list(columns)} names a column twice", remedy="name every column once")
    return positions


def _position(column: str | int, names: list[str], file: str, *, header: bool) -> int:
    if header and isinstance(column, str) and column in names:
        if names.count(column) > 1:
            raise DataUnavailable(f"{file!r}: several columns are named {column!r}", remedy="name it by its position")
        return names.index(column)
    try:
        return range(len(names))[int(column)]
    except (ValueError, IndexError):
        listing = ", ".join(names) if header else f"0 to {len(names) - 1}"
        raise DataUnavailable(
            f"{file!r} has no column {column!r}; its columns are: {listing}",
            remedy="correct target, features, delimiter or header of the data source",
        ) from None


def _numbers(row: tuple[int, list[str]], names: list[str], chosen: list[int], file: str) -> Iterator[float]:
    line, cells = row
    if len(cells) != len(names):
        raise DataUnavailable(
            f"{file!r} line {line} has {len(cells)} columns instead of {len(names)}",
            remedy="correct the line, or the delimiter of the data source",
        )
    return (_number(cells[position], line, names[position], file) for position in chosen)


def _number(cell: str, line: int, column: str, file: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if abs(value) <= FLOAT32_MAX:  # false for NaN
        return value
    raise DataUnavailable(
        f"{file!r} line {line}, column {column!r}: {cell[:40]!r} is not a finite float32 number",
        remedy="fill or drop empty cells, encode words as numbers, and scale values too large for float32",
    )
