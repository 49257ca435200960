"""Requests for inference and their responses as messages of the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from locex_inference.errors import InvalidInference, InvalidTensor
from locex_inference.grpc.contents import fill_contents, from_contents
from locex_inference.grpc.messages import ModelInferRequest, ModelInferResponse
from locex_inference.grpc.status import parse
from locex_inference.grpc.wire import join, split
from locex_inference.request import InferRequest, InferResponse
from locex_inference.requested import PLAIN, Requested, requested
from locex_inference.shared_memory import SharedMemory, part_of
from locex_inference.tensors import datatype_of, from_raw, to_raw

if TYPE_CHECKING:
    from locex.api import Array
    from locex_inference.tensors import Buffer

_SMALL = 16384  # bytes up to which protobuf's copies cost less than reading the message by hand


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and how it wants its outputs: ``typed`` values instead of raw bytes, in shared memory, as classes."""

    request: InferRequest
    outputs: Mapping[str, Requested]
    typed: bool
    final: bool


def decode(content: bytes, shared_memory: SharedMemory) -> Asked:
    """Return what the bytes of a `ModelInferRequest` ask for; raise `InvalidInference`."""
    header, raw = split(content) if len(content) > _SMALL else (content, None)
    message = parse(ModelInferRequest, header)
    if raw is None:
        raw = list(message.raw_input_contents)
    parameters = parameters_of(message.parameters) if message.parameters else {}
    outputs = {}
    for output in message.outputs:
        if output.name in outputs:
            raise InvalidInference(f"the output {output.name!r} is asked for twice")
        outputs[output.name] = requested(parameters_of(output.parameters), output.name) if output.parameters else PLAIN
    request = InferRequest(
        message.model_name,
        _inputs(message.inputs, raw, shared_memory),
        message.model_version,
        tuple(outputs),
        message.id,
        parameters,
    )
    typed = parameters.get("binary_data_output") is False
    return Asked(request, outputs, typed, bool(parameters.get("triton_enable_empty_final_response")))


def encode(response: InferResponse, asked: Asked, shared_memory: SharedMemory) -> tuple[Any, list[bytes | memoryview]]:
    """Return a `ModelInferResponse` and the raw tensors that `locex_inference.grpc.wire.join` puts behind it."""
    message = ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    raw: list[bytes | memoryview] = []
    for name, found in response.outputs.items():
        wanted = asked.outputs.get(name, PLAIN)
        array = wanted.form(found, name) if wanted.classes else found
        datatype = datatype_of(array)
        output = message.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if wanted.part is not None:
            written = shared_memory.write(wanted.part, to_raw(array), name)
            output.parameters["shared_memory_region"].string_param = wanted.part.region
            output.parameters["shared_memory_byte_size"].int64_param = written
            output.parameters["shared_memory_offset"].int64_param = wanted.part.offset
        elif asked.typed:
            fill_contents(output.contents, array, datatype, name)
        else:
            raw.append(to_raw(array))
    return message, raw


def encoded(response: InferResponse, asked: Asked, shared_memory: SharedMemory) -> bytes:
    """Return the bytes of a `ModelInferResponse`."""
    message, raw = encode(response, asked, shared_memory)
    return join(message.SerializeToString(), raw)


def parameters_of(parameters: Any) -> dict[str, Any]:
    """Return parameters as Python values; raise `InvalidInference` for one without a value."""
    found = {}
    for key, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidInference(f"the parameter {key!r} has no value")
        found[key] = getattr(parameter, choice)
    return found


def _inputs(messages: Any, raw: list[Any], shared_memory: SharedMemory) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    contents = iter(raw)
    for tensor in messages:
        if tensor.name in inputs:
            raise InvalidInference(f"the input {tensor.name!r} is there twice")
        inputs[tensor.name] = _input(tensor, contents if raw else None, shared_memory)
    if raw and (left := sum(1 for _ in contents)):
        raise InvalidTensor(f"{left} of {len(raw)} raw contents belong to no input")
    return inputs


def _input(tensor: Any, raw: Any, shared_memory: SharedMemory) -> Array:
    name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
    part = part_of(parameters_of(tensor.parameters), name) if tensor.parameters else None
    if part is None and raw is None:
        return from_contents(tensor.contents, datatype, shape, name)
    if tensor.HasField("contents") and tensor.contents.ListFields():
        raise InvalidTensor(f"{name!r} has typed contents beside raw ones, or beside a place in shared memory")
    if part is not None:
        return from_raw(shared_memory.read(part, name), datatype, shape, name)
    buffer: Buffer | None = next(raw, None)
    if buffer is None:
        raise InvalidTensor(f"there are no raw contents for the input {name!r}")
    return from_raw(buffer, datatype, shape, name)
