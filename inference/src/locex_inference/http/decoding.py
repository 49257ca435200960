"""From the body of an infer request to tensors: JSON, and the binary tensor data extension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from locex.web.problems import MalformedBody
from locex_inference.errors import InvalidInference
from locex_inference.http.large_json import LARGE, parse_large
from locex_inference.request import InferRequest
from locex_inference.requested import PLAIN, Requested, deadline_of, requested
from locex_inference.shared_memory import SharedMemory, part_of
from locex_inference.tensors import from_array, from_raw, from_values

if TYPE_CHECKING:
    from locex.api import Array

_NONE: Mapping[str, Any] = {}


@dataclass(slots=True)
class Wanted:
    """How one output is wanted: as values or bytes (None: as the request's default says), and in which form."""

    binary: bool | None = None
    form: Requested = PLAIN


@dataclass(slots=True)
class Asked:
    """A request with how its outputs are to be written."""

    request: InferRequest
    binary: bool = False
    wanted: dict[str, Wanted] = field(default_factory=dict)


def decode(
    body: bytes | memoryview, header_length: int | None, request: InferRequest, memory: SharedMemory, now: float
) -> Asked:
    """Fill in a request from its body; raise `InvalidInference` or `MalformedBody` naming the fault.

    ``header_length`` is the size of the JSON in front of the tensors' bytes; None: all of the body is JSON.
    """
    head: bytes | memoryview = body
    if header_length is None:
        tail = memoryview(b"")
    elif header_length > len(body):
        raise MalformedBody(f"Inference-Header-Content-Length is {header_length}, the body has {len(body)} bytes")
    else:
        view = memoryview(body)
        head, tail = view[:header_length], view[header_length:]
    content = parse_large(head) if len(head) > LARGE else _parse(head)
    request.inputs = _inputs(content.get("inputs"), tail, memory)
    identifier = content.get("id", "")
    if not isinstance(identifier, str):
        raise InvalidInference("the request's id is no text")
    request.id = identifier
    parameters = _parameters(content, "the request")
    asked = Asked(request)
    if parameters:
        request.parameters = parameters
        request.deadline = deadline_of(parameters, now, request.deadline)
        asked.binary = _flag(parameters, "binary_data_output", "the request") or False
    if outputs := content.get("outputs"):
        _outputs(outputs, asked)
    return asked


def _parse(head: bytes | memoryview) -> dict[str, Any]:
    try:
        content = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the request is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise MalformedBody("the request is not a JSON object")
    return content


def _inputs(given: Any, tail: memoryview, memory: SharedMemory) -> dict[str, Array]:
    if not isinstance(given, list) or not given:
        raise InvalidInference("the request has no list of inputs")
    inputs: dict[str, Array] = {}
    position = 0
    for tensor in given:
        name, datatype, shape = _told(tensor)
        if name in inputs:
            raise InvalidInference(f"the input {name!r} comes twice")
        parameters = _parameters(tensor, name)
        size = parameters.get("binary_data_size")
        if size is not None:
            end = _end(name, size, position, tail)
            inputs[name] = from_raw(tail[position:end], datatype, shape, name)
            position = end
        elif (part := part_of(parameters, name)) is not None:
            inputs[name] = from_raw(memory.read(part, name), datatype, shape, name)
        else:
            inputs[name] = _from_json(tensor, datatype, shape, name)
    if position != len(tail):
        raise InvalidInference(f"{len(tail) - position} bytes follow those that the inputs' binary_data_size tell")
    return inputs


def _told(tensor: Any) -> tuple[str, str, list[int]]:
    if not isinstance(tensor, dict):
        raise InvalidInference("an input is not a JSON object")
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str):
        raise InvalidInference("an input has no name")
    if not isinstance(datatype, str):
        raise InvalidInference(f"the input {name!r} has no datatype")
    if not isinstance(shape, list):
        raise InvalidInference(f"the input {name!r} has no shape: a list of sizes")
    return name, datatype, shape


def _from_json(tensor: dict[str, Any], datatype: str, shape: list[int], name: str) -> Array:
    if "data" not in tensor:
        raise InvalidInference(f"the input {name!r} has neither data, binary_data_size nor shared memory")
    data = tensor["data"]
    if isinstance(data, list | int | float | str):
        return from_values(data, datatype, shape, name)
    if data is None or isinstance(data, dict):
        raise InvalidInference(f"the data of the input {name!r} are no list")
    return from_array(data, datatype, shape, name)


def _end(name: str, size: Any, position: int, tail: memoryview) -> int:
    if type(size) is not int or size < 0:
        raise InvalidInference(f"binary_data_size of {name!r} is no size: {size!r}")
    if position + size > len(tail):
        raise InvalidInference(f"{name!r} takes {size} bytes after the JSON, {len(tail) - position} came")
    return position + size


def _outputs(given: Any, asked: Asked) -> None:
    if not isinstance(given, list):
        raise InvalidInference("the request's outputs are no list")
    for output in given:
        if not isinstance(output, dict) or not isinstance(name := output.get("name"), str):
            raise InvalidInference("a requested output has no name")
        if name in asked.wanted:
            raise InvalidInference(f"the output {name!r} is asked for twice")
        parameters = _parameters(output, name)
        asked.wanted[name] = Wanted(_flag(parameters, "binary_data", name), requested(parameters, name))
    asked.request.outputs = tuple(asked.wanted)


def _parameters(of: dict[str, Any], what: str) -> Mapping[str, Any]:
    parameters = of.get("parameters")
    if parameters is None:
        return _NONE
    if not isinstance(parameters, dict):
        raise InvalidInference(f"the parameters of {what!r} are no JSON object")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, what: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInference(f"{name} of {what!r} is true or false, not {value!r}")
    return value
