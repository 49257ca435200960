"""Row filters: declarative conditions, never code."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from locex.api import Array
from locex.errors import DataUnavailable
from locex.schemas.base import Configuration

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Filter(Configuration):
    """One condition; an example that does not meet it is left out."""

    column: str | int = Field(description="What is compared: a column; y, or a position in x, of plain arrays.")
    op: Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"] = Field(description="How it is compared.")
    value: float | str | list[float | str] = Field(description="With what: a number, a word, or a list for in, not in.")

    @model_validator(mode="after")
    def _sorts(self) -> Filter:
        values = self.values
        if isinstance(self.value, list) and len(values) != 1 and self.op not in {"in", "not in"}:
            raise ValueError(f"{self.op} compares with one value, not with a list")
        if len({isinstance(value, str) for value in values}) > 1:
            raise ValueError("values must be numbers alone, or words alone")
        return self

    @property
    def values(self) -> list[float | str]:
        """What is compared with, as a list."""
        return self.value if isinstance(self.value, list) else [self.value]

    @property
    def of_words(self) -> bool:
        """Whether words are compared."""
        return any(isinstance(value, str) for value in self.values)

    def meets(self, values: Array) -> Array:
        """Return, for values of shape (n,), which meet the condition; NaN meets only != and not in."""
        if self.of_words != (values.dtype.kind == "U"):
            raise DataUnavailable(
                f"the filter compares {self.column!r}, which holds {values.dtype}, with {self.values}",
                remedy="give numbers for columns of numbers, words for columns of words",
            )
        if self.op in COMPARE:
            return np.asarray(COMPARE[self.op](values, self.values[0]), bool)
        wanted = np.array(self.values, values.dtype if values.dtype.kind == "f" else None)  # as == compares them
        return np.isin(values, wanted, invert=self.op == "not in")


def chosen(filters: Sequence[Filter], rows: int, values_of: Callable[[Filter], Array]) -> Array:
    """Return which of ``rows`` examples meet all conditions."""
    mask = np.ones(rows, bool)
    for one in filters:
        mask &= one.meets(values_of(one))
    return mask


def values_in(x: Array, y: Array, one: Filter) -> Array:
    """Return what a filter compares in plain arrays: ``y``, or a position in ``x``; raise `DataUnavailable`."""
    if one.column == "y" and y.ndim == 1:
        return y
    try:
        position = int(one.column)
        if x.ndim == 2 and 0 <= position < x.shape[1]:  # noqa: PLR2004 -- examples and columns
            column: Array = x[:, position]
            return column
    except ValueError:
        pass
    raise DataUnavailable(
        f"there is no {one.column!r} to filter by: x has shape {x.shape[1:]} per example, y {y.shape[1:]}",
        remedy="filter by y (one class index), or by the position of a column of x",
    )
