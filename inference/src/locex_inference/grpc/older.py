"""The inference services of older nodes, answered by the models that are served here.

Source: the older nodes' `BasicInferenceService` and `ExtendedInferenceService` (docs/inference_grpc.md lists what was
free to choose). Both answer with the selected model; `BasicInferenceSetup` selects it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import numpy as np

from locex.errors import LocexError
from locex.web.problems import status_of
from locex.web.routes import Scope
from locex_inference.errors import InferenceError, InvalidInference, InvalidTensor, NotReady
from locex_inference.grpc.calls import Method, in_order, raw_stream, unary
from locex_inference.grpc.messages import message
from locex_inference.grpc.parts import Parts
from locex_inference.grpc.status import Context, parse
from locex_inference.grpc.tensor_proto import fill_tensor_proto, from_tensor_proto
from locex_inference.request import InferRequest
from locex_inference.tensors import BYTES, dtype_of, elements_of, shaped

if TYPE_CHECKING:
    from locex.api import Array
    from locex_inference.request import InferResponse
    from locex_inference.serving import ServedModel

BASIC = "basic_inference.BasicInferenceService"
SETUP = "basic_inference_setup.BasicInferenceSetup"
EXTENDED = "extended_inference.ExtendedInferenceService"
SERVICES = (BASIC, SETUP, EXTENDED)


def methods(parts: Parts) -> list[Method]:
    """Return the methods of the three services."""
    older = _Older(parts)
    return [
        raw_stream(f"/{BASIC}/predict", Scope.RUN, older.predict_basic),
        raw_stream(f"/{EXTENDED}/predict", Scope.RUN, older.predict_extended),
        unary(f"/{SETUP}/setup", Scope.ADMIN, message("basic_inference_setup.InferenceSetup"), older.setup),
    ]


class _Older:
    def __init__(self, parts: Parts) -> None:
        self._serving = parts.serving
        self._selection = parts.selection

    async def predict_basic(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Answer float tensors: the model's first input, its first output."""
        kind, response_kind = (message(f"basic_inference.BasicInference{side}") for side in ("Request", "Response"))

        async def answer(content: bytes) -> bytes:
            request = parse(kind, content)
            served = self._selected()
            inputs = {served.inputs[0].name: _cast(_of_tensor32(request.tensor), served.inputs[0].datatype)}
            found = await self._infer(served, inputs, (served.outputs[0].name,))
            response = response_kind(id=request.id)
            _fill_tensor32(response.tensor, found.outputs[served.outputs[0].name])
            return _bytes(response)

        await in_order(requests, context, answer, BASIC)

    async def predict_extended(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Answer named tensors: all inputs, all outputs."""
        kind, response_kind = (
            message(f"extended_inference.ExtendedInference{side}") for side in ("Request", "Response")
        )

        async def answer(content: bytes) -> bytes:
            request = parse(kind, content)
            served = self._selected()
            inputs = {name: from_tensor_proto(proto, name) for name, proto in request.input.items()}
            if len(inputs) == len(served.inputs) == 1:  # their clients name a tensor as their pipelines did
                inputs = {served.inputs[0].name: next(iter(inputs.values()))}
            found = await self._infer(served, inputs, ())
            response = response_kind(id=request.id)
            for name, array in found.outputs.items():
                fill_tensor_proto(response.output[name], array)
            return _bytes(response)

        await in_order(requests, context, answer, EXTENDED)

    async def setup(self, request: Any) -> Any:
        """Select a model, load it with the transformations before it; ``status`` is as HTTP's."""
        response = message("basic_inference_setup.InferenceSetupResponse")
        name, version = request.model_name, request.model_version
        try:
            steps = [{"id": step.id, "parameters": _parameters(step.params)} for step in request.transformations]
            if not name:
                raise InvalidInference("the setup names no model")
            if steps or not self._is_ready(name, version):
                await self._serving.load(name, {"preprocessing": steps} if steps else None, {})
            served = self._serving.metadata(name, version)
        except LocexError as error:
            status = error.http if isinstance(error, InferenceError) else status_of(error.error_code, {})
            return response(status=status, message=error.message)
        self._selection.model, self._selection.version = name, version
        return response(status=200, message=f"{served.name} answers, version {version or ', '.join(served.versions)}")

    def _is_ready(self, name: str, version: str) -> bool:
        try:
            return self._serving.model_ready(name, version)
        except InferenceError:
            return False

    def _selected(self) -> ServedModel:
        model, version = self._selection.model, self._selection.version
        if not model:
            ready = {entry.name for entry in self._serving.index(ready_only=True)}
            if len(ready) != 1:
                raise NotReady(
                    f"no model is selected, and {len(ready)} are served",
                    remedy="call BasicInferenceSetup.setup, or name the model in model.json",
                )
            [model] = ready
        return self._serving.metadata(model, version)

    async def _infer(self, served: ServedModel, inputs: dict[str, Array], outputs: tuple[str, ...]) -> InferResponse:
        request = InferRequest(served.name, inputs, self._selection.version, outputs)
        response = self._serving.infer_now(request)
        return await self._serving.infer(request) if response is None else response


def _of_tensor32(tensor: Any) -> Array:
    """Return the array of a `Tensor32`; without a shape it has one axis."""
    shape = tuple(tensor.shape) or (len(tensor.array),)
    if elements_of(shape, "tensor") != len(tensor.array):
        raise InvalidTensor(f"the tensor of shape {list(shape)} has {len(tensor.array)} values")
    return shaped(np.fromiter(tensor.array, np.float32, len(tensor.array)), shape, "tensor")


def _fill_tensor32(tensor: Any, array: Array) -> None:
    if array.dtype.kind in "OSU":
        raise InvalidInference("the model's first output is of the type BYTES, which this service cannot carry")
    tensor.array.extend(array.astype(np.float32).ravel().tolist())
    tensor.shape.extend(array.shape)


def _cast(array: Array, datatype: str) -> Array:
    """Return the floats in the type that the model takes; raise `InvalidTensor` where they are none of it."""
    if datatype == BYTES:
        raise InvalidInference("the model's first input is of the type BYTES, which this service cannot carry")
    dtype = dtype_of(datatype, "tensor")
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind in "iub" and not np.array_equal(cast.astype(np.float64), array.astype(np.float64)):
        raise InvalidTensor(f"the tensor holds values that are none of the type {datatype}")
    return cast


def _parameters(params: Any) -> dict[str, Any]:
    """Return a transformation's parameters; lists and objects are written as JSON, the rest as plain text."""
    found: dict[str, Any] = {}
    for key, text in params.items():
        try:
            found[key] = json.loads(text) if text.startswith(("[", "{")) else text
        except (ValueError, RecursionError):
            raise InvalidInference(f"the parameter {key!r} begins as JSON and is none") from None
    return found


def _bytes(response: Any) -> bytes:
    serialized: bytes = response.SerializeToString()
    return serialized
