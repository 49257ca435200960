"""LiteRT's interpreter as an inferencer."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from locex.api import InferencerContext, TensorInfo
from locex.artefacts.datatypes import datatype_named
from locex.errors import InvalidConfiguration, InvalidModel

if TYPE_CHECKING:
    from locex.api import Array
    from locex_inference.inferencers.tflite import TfliteConfig

_LARGEST = 2**31  # elements of one tensor


class TfliteInferencer:
    """One interpreter, which one thread uses at a time; its memory follows the shapes of the inputs."""

    def __init__(self, config: TfliteConfig, context: InferencerContext) -> None:
        """Load the model; raise `InvalidModel` for one that cannot be run."""
        try:
            self._interpreter = Interpreter(model_path=str(context.artefact.path), num_threads=context.threads)
            self._require_sizes()
            self._interpreter.allocate_tensors()
            names = self._names(config.signature)
        except (ValueError, RuntimeError) as error:
            told = str(error).strip().partition("\n")[0][:500]
            raise InvalidModel(
                f"LiteRT cannot load the model: {told}", remedy="convert it again with built-in operators only"
            ) from None
        self._turn = threading.Lock()
        self._inputs = {name: self._details(index) for name, index in names[0].items()}
        self._outputs = {name: self._details(index) for name, index in names[1].items()}
        free = any(-1 in detail["shape_signature"][:1] for detail in self._inputs.values())
        self.inputs = tuple(_info(name, detail) for name, detail in self._inputs.items())
        self.outputs = tuple(_info(name, detail, free_batch=free) for name, detail in self._outputs.items())

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs of these names."""
        with self._turn:
            self._resize(inputs)
            for name, detail in self._inputs.items():
                self._interpreter.set_tensor(detail["index"], np.ascontiguousarray(inputs[name]))
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(self._outputs[name]["index"]) for name in outputs}

    def close(self) -> None:
        """Let go of the interpreter."""
        del self._interpreter

    def _resize(self, inputs: Mapping[str, Array]) -> None:
        changed = False
        for name, detail in self._inputs.items():
            shape = [*inputs[name].shape]
            if shape != detail.get("now", [*detail["shape"]]):
                self._interpreter.resize_tensor_input(detail["index"], shape)
                detail["now"], changed = shape, True
        if changed:
            self._interpreter.allocate_tensors()

    def _names(self, signature: str | None) -> tuple[dict[str, int], dict[str, int]]:
        """Return the tensors by the names that callers use: those of a signature, else the tensors' own."""
        known = self._interpreter.get_signature_list()
        if signature is None and len(known) == 1:
            signature = next(iter(known))
        if signature is None:
            return _by_name(self._interpreter.get_input_details()), _by_name(self._interpreter.get_output_details())
        if signature not in known:
            raise InvalidConfiguration(
                f"the model has no signature {signature!r}; it has: {', '.join(known) or 'none'}",
                remedy="name one of them",
            )
        runner = self._interpreter.get_signature_runner(signature)
        return tuple(  # type: ignore[return-value]
            {name: detail["index"] for name, detail in side.items()}
            for side in (runner.get_input_details(), runner.get_output_details())
        )

    def _details(self, index: int) -> dict[str, Any]:
        sides = (*self._interpreter.get_input_details(), *self._interpreter.get_output_details())
        found = next((detail for detail in sides if detail["index"] == index), None)
        if found is None:
            raise InvalidModel("the model's signature names a tensor that is none of its inputs or outputs")
        return dict(found)

    def _require_sizes(self) -> None:
        """Raise `InvalidModel` for absurd sizes, before memory is taken for them."""
        for detail in self._interpreter.get_tensor_details():
            if math.prod(max(1, int(size)) for size in detail["shape"]) > _LARGEST:
                raise InvalidModel(f"the model's {detail['name']!r} has the absurd shape {[*detail['shape']]}")


def _by_name(details: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {str(detail["name"]).removesuffix(":0"): int(detail["index"]) for detail in details}


def _info(name: str, detail: Mapping[str, Any], *, free_batch: bool = False) -> TensorInfo:
    dtype = np.dtype(detail["dtype"])
    datatype = "BYTES" if dtype.kind in "OSU" else datatype_named(dtype.name, name)
    shape = [int(size) for size in (detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"])]
    if free_batch and shape:
        shape[0] = -1  # the output's own signature often keeps the size that the model was converted with
    return TensorInfo(name, datatype, tuple(shape))
