"""From outputs to the body of an infer response: JSON, and the binary tensor data extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from locex_inference.errors import InvalidInference
from locex_inference.http.decoding import Asked, Wanted
from locex_inference.request import InferResponse
from locex_inference.shared_memory import SharedMemory
from locex_inference.tensors import BYTES, datatype_of, to_raw, to_values

if TYPE_CHECKING:
    from locex.api import Array

_PLAIN = Wanted()


class Encoded(NamedTuple):
    """A body in parts; ``header_length`` is the size of the JSON in front of the tensors' bytes, None: all is JSON."""

    parts: list[bytes | memoryview]
    header_length: int | None


def encode(asked: Asked, response: InferResponse, memory: SharedMemory) -> Encoded:
    """Write a response as it was asked for; raise `InvalidInference` where that cannot be."""
    parts: list[bytes | memoryview] = [b""]
    outputs = [
        _output(name, array, asked.wanted.get(name, _PLAIN), memory, parts, binary=asked.binary)
        for name, array in response.outputs.items()
    ]
    content: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        content["id"] = response.id
    content["outputs"] = outputs
    try:
        parts[0] = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise InvalidInference(
            f"the outputs cannot be written as JSON: {error}",
            remedy="ask for them with binary_data: true",
        ) from None
    return Encoded(parts, len(parts[0]) if len(parts) > 1 else None)


def _output(
    name: str,
    array: Array,
    wanted: Wanted,
    memory: SharedMemory,
    parts: list[bytes | memoryview],
    *,
    binary: bool,
) -> dict[str, Any]:
    array = wanted.form.form(array, name)
    datatype = datatype_of(array)
    output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": array.shape}
    part = wanted.form.part
    if part is not None:
        size = memory.write(part, to_raw(array), name)
        output["parameters"] = {
            "shared_memory_region": part.region,
            "shared_memory_byte_size": size,
            "shared_memory_offset": part.offset,
        }
    elif binary if wanted.binary is None else wanted.binary:
        raw = to_raw(array)
        parts.append(raw)
        output["parameters"] = {"binary_data_size": len(raw)}
    else:
        output["data"] = _values(array, datatype)
    return output


def _values(array: Array, datatype: str) -> Any:
    if datatype == BYTES:
        return to_values(array)
    if datatype == "BF16":
        array = array.astype(np.float32)
    return array.ravel()  # orjson writes arrays with one axis, which are always contiguous after this
