"""onnxruntime's session as an inferencer."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the library is imported

import onnxruntime as ort

from locex.api import InferencerContext, TensorInfo
from locex.errors import InvalidConfiguration, InvalidModel
from locex_inference.errors import InvalidTensor
from locex_inference.inferencers.onnx_file import check
from locex_inference.tensors import DTYPES

if TYPE_CHECKING:
    from locex.api import Array
    from locex_inference.inferencers.onnx import OnnxConfig

_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}
_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_FATAL = 4


class OnnxInferencer:
    """One session; `run` releases the GIL while it computes."""

    def __init__(self, config: OnnxConfig, context: InferencerContext) -> None:
        """Load the model; raise `InvalidModel` for one that cannot be run here."""
        path = context.artefact.path
        check(path)
        try:
            self._session = ort.InferenceSession(str(path), _options(config, context), providers=_providers(config))
            self.inputs = tuple(map(_info, self._session.get_inputs()))
            self.outputs = tuple(map(_info, self._session.get_outputs()))
        except InvalidModel:
            raise
        except Exception as error:  # noqa: BLE001 -- onnxruntime's exceptions share no other base
            if "bad_alloc" in str(error) or "Failed to allocate" in str(error):
                raise MemoryError(_told(error)) from None
            raise InvalidModel(
                f"onnxruntime cannot load the model: {_told(error)}",
                remedy="export it again for this onnxruntime, and try onnx.checker on it",
            ) from None
        self._run = self._session.run
        self._texts = frozenset(info.name for info in self.inputs if info.datatype == "BYTES")
        self._narrow = frozenset(info.name for info in (*self.inputs, *self.outputs) if info.datatype == "BF16")
        self._plain = not (self._texts or self._narrow or any(info.datatype == "BYTES" for info in self.outputs))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs of these names."""
        if self._plain:
            return dict(zip(outputs, self._run(outputs, inputs), strict=True))
        if self._narrow:
            return self._run_narrow(inputs, outputs)
        given = {name: _as_text(name, array) if name in self._texts else array for name, array in inputs.items()}
        return dict(zip(outputs, map(_as_bytes, self._run(outputs, given)), strict=True))

    def close(self) -> None:
        """Let go of the session."""
        del self._run, self._session

    def _run_narrow(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run with values of onnxruntime's own, the only ones that carry bfloat16."""
        given = {name: self._value(name, array) for name, array in inputs.items()}
        found = self._session.run_with_ort_values([*outputs], given)
        return {name: self._array(name, value) for name, value in zip(outputs, found, strict=True)}

    def _value(self, name: str, array: Array) -> Any:
        if name in self._texts:
            array = _as_text(name, array)
        if name in self._narrow:
            narrow = np.ascontiguousarray(array).view(np.uint16)
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(narrow, _BFLOAT16)
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def _array(self, name: str, value: Any) -> Array:
        if name not in self._narrow:
            return _as_bytes(value.numpy())
        shape = value.shape()
        raw = (ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr())  # numpy() knows no bfloat16
        array: Array = np.array(raw, np.uint16).view(ml_dtypes.bfloat16).reshape(shape)
        return array


def _options(config: OnnxConfig, context: InferencerContext) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = context.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = _LEVELS[config.optimization]
    options.log_severity_level = _FATAL  # what matters is raised
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if config.spinning else "0")
    return options


def _providers(config: OnnxConfig) -> list[str]:
    available = ort.get_available_providers()
    if config.device == "cuda" and _CUDA not in available:
        raise InvalidConfiguration(
            "the device cuda needs a build of onnxruntime for CUDA", remedy="install onnxruntime-gpu, or use auto"
        )
    if config.device == "cpu" or _CUDA not in available:
        return [_CPU]
    return [_CUDA, _CPU]


def _info(argument: Any) -> TensorInfo:
    datatype = _TYPES.get(argument.type)
    if datatype is None:
        raise InvalidModel(
            f"the model's {argument.name!r} is a {argument.type}, which the inference protocol has no name for",
            remedy="export the model with plain tensors: for scikit-learn, without ZipMap (zipmap=False)",
        )
    sizes = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in argument.shape or ())
    return TensorInfo(argument.name, datatype, sizes)


def _as_text(name: str, array: Array) -> Array:
    """Return texts as onnxruntime takes them; raise `InvalidTensor` for bytes that are no UTF-8, as ONNX asks."""
    try:
        return np.array([text.decode() for text in array.ravel()], object).reshape(array.shape)
    except UnicodeDecodeError as error:
        raise InvalidTensor(f"{name!r} holds bytes that are no UTF-8, which the model's texts are: {error}") from None


def _as_bytes(array: Array) -> Array:
    if array.dtype.kind not in "OUS":
        return array
    texts = np.empty(array.size, DTYPES["BYTES"])
    texts[:] = [
        text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape") for text in array.ravel()
    ]
    return texts.reshape(array.shape)


def _told(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:500]
