"""Typed contents: a tensor's values as protobuf's repeated fields have them, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from locex_inference.errors import InvalidTensor
from locex_inference.tensors import BYTES, dtype_of, elements_of, from_array, shaped, to_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from locex.api import Array

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}

_WIRE = {
    "bool_contents": np.dtype(bool),
    "int_contents": np.dtype(np.int32),
    "int64_contents": np.dtype(np.int64),
    "uint_contents": np.dtype(np.uint32),
    "uint64_contents": np.dtype(np.uint64),
    "fp32_contents": np.dtype(np.float32),
    "fp64_contents": np.dtype(np.float64),
}


def field_of(datatype: str, tensor: str) -> str:
    """Return the field that holds the values of a type; raise `InvalidTensor` for one that has none."""
    dtype_of(datatype, tensor)
    field = _FIELDS.get(datatype)
    if field is None:
        raise InvalidTensor(f"{tensor!r} has the type {datatype}, which only raw contents can carry")
    return field


def from_contents(contents: Any, datatype: str, shape: Sequence[int], tensor: str) -> Array:
    """Return an array of the values; raise `InvalidTensor` for too few or too many, or for those of another type."""
    field = field_of(datatype, tensor)
    elements = elements_of(shape, tensor)
    for found, _ in contents.ListFields():
        if found.name != field:
            raise InvalidTensor(f"{tensor!r} has the type {datatype}: its values belong in {field}, not {found.name}")
    values = getattr(contents, field)
    if len(values) != elements:
        raise InvalidTensor(f"{tensor!r} of shape {list(shape)} takes {elements} values, {len(values)} arrived")
    if datatype == BYTES:
        return shaped(np.fromiter(values, object, elements), shape, tensor)
    return from_array(np.fromiter(values, _WIRE[field], elements), datatype, shape, tensor)


def fill_contents(contents: Any, array: Array, datatype: str, tensor: str) -> None:
    """Write an array's values into their field."""
    values = array.ravel().tolist() if datatype == BYTES else to_values(array)
    getattr(contents, field_of(datatype, tensor)).extend(values)
