"""PyTorch's models as inferencers: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from locex.api import InferencerContext, ModelSignature, TensorInfo, TensorSpec
from locex.artefacts.archive import open_archive
from locex.artefacts.datatypes import datatype_named
from locex.errors import InvalidConfiguration, InvalidModel
from locex_torch_builder.artefact import load_model
from locex_torch_builder.exported.placement import place
from locex_torch_builder.exported.program import inputs_of, is_exported, load_program
from locex_torch_builder.inferencer import DTYPES, InputConfig, TorchInferencerConfig
from locex_torch_builder.model import first_line, require_memory

if TYPE_CHECKING:
    from locex.api import Array

_PROBES = (2, 3)  # numbers of examples: sizes that change with them are free
_FREE = 16  # what stands for free sizes when outputs are found out


class ModuleInferencer:
    """A module on its device. BF16 tensors are float32 outside of it: arrays have no bfloat16 of their own."""

    def __init__(
        self,
        module: Callable[..., Any],
        device: torch.device,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[str],
    ) -> None:
        """Find out what the module gives by running it; raise `InvalidModel` where it gives no tensors."""
        self._module = module
        self._device = device
        self._narrow = {info.name for info in inputs if info.datatype == "BF16"}
        self.inputs = tuple(
            TensorInfo(info.name, "FP32", info.shape) if info.name in self._narrow else info for info in inputs
        )
        self.outputs = self._found_out(outputs)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs of these names."""
        made = self._call(inputs)
        return {info.name: made[position] for position, info in enumerate(self.outputs) if info.name in outputs}

    def close(self) -> None:
        """Let go of the module."""
        del self._module

    def _call(self, inputs: Mapping[str, Array]) -> list[Array]:
        # copied: the arrays are read-only, and a module may write into its input
        given = [torch.from_numpy(np.array(inputs[info.name])) for info in self.inputs]
        placed = [
            tensor.to(self._device, torch.bfloat16 if info.name in self._narrow else None)
            for tensor, info in zip(given, self.inputs, strict=True)
        ]
        with torch.inference_mode():
            made = _flat(self._module(*placed))
        return [(one.float() if one.dtype is torch.bfloat16 else one).cpu().numpy() for one in made]

    def _found_out(self, names: Sequence[str]) -> tuple[TensorInfo, ...]:
        """Return the outputs: a size that changes with the number of examples is free."""
        small, large = ([*self._probe(examples)] for examples in self._examples())
        if names and len(names) != len(small):
            raise InvalidConfiguration(
                f"{len(names)} outputs are named, the model gives {len(small)}", remedy="name each of them once"
            )
        made_up = [f"output{position}" for position in range(len(small))] if len(small) > 1 else ["output"]
        return tuple(
            TensorInfo(name, datatype_named(str(one.dtype), name), _free_sizes(one.shape, other.shape))
            for name, one, other in zip(names or made_up, small, large, strict=True)
        )

    def _examples(self) -> tuple[int, int]:
        free = any(info.shape and info.shape[0] < 0 for info in self.inputs)
        return _PROBES if free else (1, 1)

    def _probe(self, examples: int) -> list[Array]:
        sample = {info.name: np.zeros(_sizes(info, examples), DTYPES[info.datatype]) for info in self.inputs}
        try:
            return self._call(sample)
        except InvalidModel:
            raise
        except Exception as error:  # the operations of a model raise what they like
            require_memory(error)
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in sample.items())
            raise InvalidModel(
                f"the model does not take {shapes}: {first_line(error)}",
                remedy="say what it takes (fields.inputs)",
            ) from error


def load_inferencer(config: TorchInferencerConfig, context: InferencerContext) -> ModuleInferencer:
    """Return an artefact's model, loaded as safely as for training."""
    torch.set_num_threads(context.threads)
    device = _device(config.device)
    with context.artefact.path.open("rb") as file, open_archive(file) as archive:
        if is_exported(archive.namelist()):
            program = load_program(archive)
            module: Any = program.module(check_guards=False)
            place(module, device)
            return ModuleInferencer(module, device, inputs_of(program), config.outputs)
    loaded = load_model(context)
    loaded.train(False)
    loaded.move(device)
    inputs = [_named(one) for one in config.inputs] or _told(loaded.signature, loaded.kind)
    return ModuleInferencer(loaded.module, device, inputs, config.outputs)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidConfiguration("the device cuda is not here", remedy="use auto, or cpu")
    return torch.device("cpu" if name == "cpu" or not torch.cuda.is_available() else "cuda")


def _named(config: InputConfig) -> TensorInfo:
    return TensorInfo(config.name, config.datatype, tuple(config.shape))


def _told(signature: ModelSignature, kind: str) -> list[TensorInfo]:
    spec: TensorSpec | None = signature.input
    if spec is None:
        raise InvalidConfiguration(
            f"a {kind} does not tell what it takes",
            remedy='say it in the model\'s options: "fields": {"inputs": [{"name": "x", "datatype": "FP32", '
            '"shape": [-1, 4]}]}',
        )
    sizes = (-1 if size is None else size for size in spec.size)
    return [TensorInfo("input", datatype_named(spec.dtype, "input"), (-1, *sizes))]


def _sizes(info: TensorInfo, examples: int) -> list[int]:
    first = [examples if size < 0 else size for size in info.shape[:1]]
    return first + [_FREE if size < 0 else size for size in info.shape[1:]]


def _free_sizes(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(-1 if a != b else a for a, b in zip(one, other, strict=True))


def _flat(made: Any) -> list[Tensor]:
    """Return the tensors of an output in their order."""
    parts = list(made.values()) if isinstance(made, dict) else list(made) if isinstance(made, tuple | list) else [made]
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise InvalidModel("the model gives what are no tensors", remedy="export it so that it returns tensors")
    return parts
