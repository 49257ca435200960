"""TensorFlow's `TensorProto` and NumPy's arrays, without TensorFlow.

Source: TensorFlow, ``tensor.proto`` and ``types.proto``. ``tensor_content`` are little-endian bytes in row-major order;
else the values are in the field of their type, and the last one stands for all that follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from locex_inference.errors import InvalidTensor
from locex_inference.grpc.messages import message
from locex_inference.tensors import (
    BYTES,
    DTYPES,
    as_bytes,
    datatype_of,
    elements_of,
    from_array,
    from_raw,
    shaped,
    to_raw,
)

if TYPE_CHECKING:
    from locex.api import Array

TensorProto = message("tensorflow.TensorProto")
MAX_BYTES = 512 << 20
"""Largest tensor that one repeated value may stand for."""

_KINDS = TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type
_TYPES = {
    "DT_FLOAT": ("FP32", "float_val"),
    "DT_DOUBLE": ("FP64", "double_val"),
    "DT_HALF": ("FP16", "half_val"),
    "DT_BFLOAT16": ("BF16", "half_val"),
    "DT_INT8": ("INT8", "int_val"),
    "DT_INT16": ("INT16", "int_val"),
    "DT_INT32": ("INT32", "int_val"),
    "DT_INT64": ("INT64", "int64_val"),
    "DT_UINT8": ("UINT8", "int_val"),
    "DT_UINT16": ("UINT16", "int_val"),
    "DT_UINT32": ("UINT32", "uint32_val"),
    "DT_UINT64": ("UINT64", "uint64_val"),
    "DT_BOOL": ("BOOL", "bool_val"),
    "DT_STRING": (BYTES, "string_val"),
}
_WIRE = {
    "float_val": np.float32,
    "double_val": np.float64,
    "half_val": np.int32,
    "int_val": np.int32,
    "int64_val": np.int64,
    "uint32_val": np.uint32,
    "uint64_val": np.uint64,
    "bool_val": np.bool_,
}
_BY_NUMBER = {_KINDS.values_by_name[name].number: known for name, known in _TYPES.items()}
_NUMBERS = {known[0]: _KINDS.values_by_name[name].number for name, known in _TYPES.items()}


def from_tensor_proto(proto: Any, tensor: str) -> Array:
    """Return the array of a `TensorProto`; raise `InvalidTensor`."""
    known = _BY_NUMBER.get(proto.dtype)
    if known is None or proto.tensor_shape.unknown_rank:
        raise InvalidTensor(f"{tensor!r} has a type (number {proto.dtype}) or a shape that cannot be read")
    datatype, field = known
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    elements = elements_of(shape, tensor)
    if proto.tensor_content:
        if datatype == BYTES:
            raise InvalidTensor(f"{tensor!r} holds texts: they belong in string_val")
        return from_raw(proto.tensor_content, datatype, shape, tensor)
    values = _values(getattr(proto, field), known, tensor)
    if len(values) > elements or (elements and not len(values)):
        raise InvalidTensor(f"{tensor!r} of shape {list(shape)} takes {elements} values, {len(values)} arrived")
    if len(values) < elements:
        if elements * values.dtype.itemsize > MAX_BYTES:
            raise InvalidTensor(f"{tensor!r} would take more than {MAX_BYTES >> 20} MiB for one repeated value")
        values = np.concatenate([values, np.broadcast_to(values[-1:], elements - len(values))])
    return shaped(values, shape, tensor)


def fill_tensor_proto(proto: Any, array: Array) -> None:
    """Write an array into a `TensorProto`."""
    datatype = datatype_of(array)
    proto.dtype = _NUMBERS[datatype]
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if datatype == BYTES:
        proto.string_val.extend(as_bytes(value) for value in array.ravel())
    else:
        proto.tensor_content = bytes(to_raw(array))


def _values(field: Any, known: tuple[str, str], tensor: str) -> Array:
    datatype, name = known
    if datatype == BYTES:
        return np.fromiter(field, object, len(field))
    values: Array = np.fromiter(field, _WIRE[name], len(field))
    if name == "half_val":  # as the numbers that their bits make
        bits = from_array(values, "UINT16", values.shape, tensor)
        return bits.view(DTYPES[datatype])
    return from_array(values, datatype, values.shape, tensor)
