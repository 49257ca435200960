"""Outputs as their best classes: Triton's classification extension, the same on every transport."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from locex_inference.errors import InvalidInference
from locex_inference.tensors import datatype_of

if TYPE_CHECKING:
    from locex.api import Array


def class_count_of(parameters: Mapping[str, Any], output: str) -> int:
    """Return how many classes an output's parameters ask for; 0: its values. Raise `InvalidInference`."""
    count = parameters.get("classification", 0)
    if type(count) is not int or count < 0:
        raise InvalidInference(f"{output!r} asks for {count!r} classes: that is no whole number of 0 or more")
    return count


def classify(array: Array, count: int, output: str, labels: Sequence[str] = ()) -> Array:
    """Return the ``count`` largest values as a BYTES tensor of ``value:index`` or ``value:index:label``.

    Of an array of shape (n, …) the result has shape (n, k), of one with a single axis (k,); k is ``count``, or all
    there are. Equal values come in the order of their indices, NaN comes last.
    """
    if datatype_of(array) == "BYTES":
        raise InvalidInference(f"{output!r} has the type BYTES: only numbers can be classified")
    rows = array.reshape(len(array), math.prod(array.shape[1:])) if array.ndim > 1 else array.reshape(1, -1)
    values = rows.astype(np.float64) if rows.dtype.kind not in "iu" else rows
    best = _order(values)[:, :count]
    classes: Array = np.empty(best.shape, object)
    for row, indices in enumerate(best):
        for rank, index in enumerate(indices):
            classes[row, rank] = _text(values[row, index], int(index), labels)
    return classes if array.ndim > 1 else classes[0]


def _order(values: Array) -> Array:
    """Return the indices of each row from the largest value to the smallest."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -np.inf, values)
    ascending = np.argsort(values[:, ::-1], axis=1, kind="stable")
    descending: Array = values.shape[1] - 1 - ascending[:, ::-1]
    return descending


def _text(value: Any, index: int, labels: Sequence[str]) -> bytes:
    number = f"{value:f}" if isinstance(value, np.floating) else str(value)
    label = f":{labels[index]}" if index < len(labels) else ""
    return f"{number}:{index}{label}".encode()
