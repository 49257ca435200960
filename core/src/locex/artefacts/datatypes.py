"""The inference protocol's names of element types, for plugins that load models."""

from __future__ import annotations

from locex.errors import InvalidModel

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
    "object": "BYTES",
    "string": "BYTES",
}
"""By NumPy's name of the type, which frameworks share."""


def datatype_named(dtype: str, tensor: str) -> str:
    """Return the protocol's name of a type; raise `InvalidModel`, naming the tensor, where it has none."""
    found = DATATYPES.get(dtype)
    if found is None:
        raise InvalidModel(
            f"the model's {tensor!r} has the type {dtype}, which the inference protocol has no name for",
            remedy="export the model with plain inputs and outputs",
        )
    return found
