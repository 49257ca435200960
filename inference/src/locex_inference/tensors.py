"""The protocol's data types and NumPy's arrays: raw bytes and lists of values, both ways.

Source: Open Inference Protocol v2, "Tensor Data Types", and Triton's binary tensor data extension, which adds BF16.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from locex_inference.errors import InvalidTensor

if TYPE_CHECKING:
    from locex.api import Array

    Buffer = bytes | bytearray | memoryview

BYTES = "BYTES"

MOST_AXES = 64
"""Axes of an array, as NumPy has them: the product of any more sizes could take minutes."""

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(bool),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    BYTES: np.dtype(object),
}
"""The NumPy type of every data type; BYTES tensors are arrays of ``bytes`` objects."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<I")


def datatype_of(array: Array) -> str:
    """Return the data type of an array; raise `InvalidTensor` for one that the protocol cannot carry."""
    name = _NAMES.get(array.dtype)
    if name is not None:
        return name
    if array.dtype.kind in "SU":
        return BYTES
    raise InvalidTensor(f"arrays of {array.dtype} have no data type in the protocol")


def dtype_of(datatype: str, tensor: str) -> np.dtype[Any]:
    """Return the NumPy type of a data type; raise `InvalidTensor` naming the tensor."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidTensor(f"{tensor!r} has the unknown data type {datatype!r}; there are {', '.join(DTYPES)}")
    return dtype


def elements_of(shape: Sequence[int], tensor: str) -> int:
    """Return how many elements a shape has; raise `InvalidTensor` for sizes that are no sizes."""
    if len(shape) > MOST_AXES:
        raise InvalidTensor(f"{tensor!r} has a shape of {len(shape)} axes that no array can have")
    for size in shape:
        if type(size) is not int or size < 0:
            raise InvalidTensor(f"{tensor!r} has the shape {list(shape)}: sizes are whole numbers, 0 or more")
    return math.prod(shape)


def shaped(array: Array, shape: Sequence[int], tensor: str) -> Array:
    """Return an array in its shape; raise `InvalidTensor` for a shape that no array can have."""
    try:
        return array.reshape(shape)
    except ValueError:
        raise InvalidTensor(f"{tensor!r} has a shape of {len(shape)} axes that no array can have") from None


def from_raw(buffer: Buffer, datatype: str, shape: Sequence[int], tensor: str) -> Array:
    """Return a read-only array over the bytes, copied only where they are not aligned; raise `InvalidTensor`."""
    elements = elements_of(shape, tensor)
    dtype = dtype_of(datatype, tensor)
    if datatype == BYTES:
        return shaped(_texts(memoryview(buffer), elements, tensor), shape, tensor)
    if len(buffer) != elements * dtype.itemsize:
        raise InvalidTensor(
            f"{tensor!r} of shape {list(shape)} and type {datatype} takes {elements * dtype.itemsize} bytes, "
            f"{len(buffer)} arrived",
        )
    if datatype == "BOOL" and elements and np.frombuffer(buffer, np.uint8).max() > 1:
        raise InvalidTensor(f"{tensor!r} is of type BOOL and holds bytes that are neither 0 nor 1")
    array = shaped(np.frombuffer(buffer, dtype), shape, tensor)
    if not array.flags.aligned:  # models may read with instructions that need it
        array = array.copy()
    array.flags.writeable = False
    return array


def to_raw(array: Array) -> bytes | memoryview:
    """Return an array's bytes in the protocol's form: little-endian, row-major, BYTES with lengths."""
    datatype = datatype_of(array)
    if datatype == BYTES:
        return b"".join(_LENGTH.pack(len(text)) + text for text in map(as_bytes, array.ravel()))
    contiguous = np.ascontiguousarray(array, DTYPES[datatype])
    return contiguous.reshape(-1).view(np.uint8).data


def from_values(values: Any, datatype: str, shape: Sequence[int], tensor: str) -> Array:
    """Return an array of JSON values, flat or nested; raise `InvalidTensor` for those of another type or number."""
    elements = elements_of(shape, tensor)
    dtype = dtype_of(datatype, tensor)
    if not isinstance(values, list):
        values = [values]
    if datatype == BYTES:
        flat = [as_bytes(value) for value in _flat(values, tensor)]
        array: Array = np.empty(len(flat), object)
        array[:] = flat
    else:
        array = _numbers(_array(values, tensor), datatype, dtype, tensor)
    if array.size != elements:
        raise InvalidTensor(f"{tensor!r} of shape {list(shape)} takes {elements} values, {array.size} arrived")
    return shaped(array, shape, tensor)


def from_array(numbers: Array, datatype: str, shape: Sequence[int], tensor: str) -> Array:
    """Return numbers that a parser has put into an array in the form of a tensor; the checks are `from_values`'s."""
    elements = elements_of(shape, tensor)
    array = _numbers(numbers, datatype, dtype_of(datatype, tensor), tensor)
    if array.size != elements:
        raise InvalidTensor(f"{tensor!r} of shape {list(shape)} takes {elements} values, {array.size} arrived")
    return shaped(array, shape, tensor)


def to_values(array: Array) -> list[Any]:
    """Return an array's values as JSON has them, flat; bytes become text where they are UTF-8."""
    datatype = datatype_of(array)
    if datatype == BYTES:
        return [as_bytes(value).decode("utf-8", "surrogateescape") for value in array.ravel()]
    if datatype == "BF16":
        array = array.astype(np.float32)
    values: list[Any] = array.ravel().tolist()
    return values


def as_bytes(value: Any) -> bytes:
    """Return the element of a BYTES tensor as bytes."""
    if isinstance(value, bytes):
        return value
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else str(value).encode()


def _array(values: list[Any], tensor: str) -> Array:
    if _holds_text(values):
        # NumPy would give every value the size of the longest text, which may be gigabytes in all.
        raise InvalidTensor(f"{tensor!r} holds text, and is of a type of numbers")
    try:
        return np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise InvalidTensor(f"{tensor!r} holds rows of different lengths, or what is no number: {error}") from None


def _holds_text(values: list[Any]) -> bool:
    waiting = [values]
    while waiting:
        rows = waiting.pop()
        kinds = {*map(type, rows)}
        if str in kinds:
            return True
        if list in kinds:
            waiting.extend(row for row in rows if type(row) is list)
    return False


def _numbers(found: Array, datatype: str, dtype: np.dtype[Any], tensor: str) -> Array:
    if not found.size:
        return np.empty(0, dtype)
    kinds = {"b": "b", "u": "ui", "i": "ui", "f": "uif", "V": "uif"}[dtype.kind]
    if found.dtype.kind not in kinds:
        raise InvalidTensor(f"{tensor!r} is of type {datatype} and holds {found.dtype.kind!r} values of another kind")
    if dtype.kind in "ui":
        bounds = np.iinfo(dtype)
        if int(found.min()) < bounds.min or int(found.max()) > bounds.max:
            raise InvalidTensor(f"{tensor!r} holds values that do not fit into {datatype}")
    with np.errstate(over="ignore"):
        return found.astype(dtype)


def _flat(values: list[Any], tensor: str) -> list[Any]:
    flat: list[Any] = []
    waiting = [iter(values)]
    while waiting:
        for value in waiting[-1]:
            if isinstance(value, list):
                waiting.append(iter(value))
                break
            if not isinstance(value, str | bytes):
                raise InvalidTensor(f"{tensor!r} is of type BYTES and holds {type(value).__name__}, not text")
            flat.append(value)
        else:
            waiting.pop()
    return flat


def _texts(buffer: memoryview, elements: int, tensor: str) -> Array:
    if elements > len(buffer) // _LENGTH.size:
        raise InvalidTensor(
            f"{tensor!r} takes {elements} texts with a length of 4 bytes each, {len(buffer)} bytes came",
        )
    array: Array = np.empty(elements, object)
    position = 0
    for index in range(elements):
        if position + _LENGTH.size > len(buffer):
            raise InvalidTensor(f"{tensor!r} ends after {index} of {elements} texts")
        (length,) = _LENGTH.unpack_from(buffer, position)
        position += _LENGTH.size
        if position + length > len(buffer):
            raise InvalidTensor(f"{tensor!r} ends within text {index + 1} of {elements}")
        array[index] = bytes(buffer[position : position + length])
        position += length
    if position != len(buffer):
        raise InvalidTensor(f"{tensor!r} has {len(buffer) - position} bytes after its last text")
    return array
