"""torch.export programs (``.pt2``): a graph of aten operations with its tensors."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, fx

from locex.api import LoadContext, ModelSignature, TensorInfo, TensorSpec
from locex.artefacts.datatypes import datatype_named
from locex.errors import InvalidModel
from locex_torch_builder.exported.archive import rewritten
from locex_torch_builder.exported.modes import Modes
from locex_torch_builder.exported.placement import place
from locex_torch_builder.exported.refusal import REMEDY
from locex_torch_builder.model import LoadedModel, loading


class ExportedModel(LoadedModel):
    """A program, trained by running its graph; names and order of its tensors are the original model's."""

    kind = "torch.export program"
    formats = frozenset({"safetensors", "pt2", "torchscript", "onnx"})

    def __init__(self, program: torch.export.ExportedProgram, context: LoadContext) -> None:
        """Take the signature from the graph."""
        self._program = program
        module = program.module(check_guards=False)
        super().__init__(module, signature_of(program), context.warn)
        self._modes = Modes(module)
        if self._modes.frozen:
            context.warn(
                "the program was exported in evaluation mode: dropout and batch normalization stay so in training; "
                "export model.train() to train with them"
            )

    def train(self, mode: bool = True) -> None:
        """Train as the program was exported; evaluate without dropout and with batch normalization's averages."""
        self._modes.switch(training=mode)

    def move(self, device: torch.device) -> None:
        """Move everything to a device, what the graph makes itself too."""
        place(self.module, device)

    def write(self, folder: Path) -> Path:
        """Write ``model.pt2``: the program as it was exported, with the tensors of now."""
        path = folder / "model.pt2"
        self._program.state_dict.update(self.module.state_dict(keep_vars=True))
        torch.export.save(self._program, path)
        return path


def is_exported(names: Iterable[str]) -> bool:
    """Return whether an archive's entries are those of ``torch.export.save``."""
    return any(PurePosixPath(name).name == "archive_format" for name in names)


def load_exported(archive: zipfile.ZipFile, context: LoadContext) -> ExportedModel:
    """Load a program, checked and without anything but its graph and tensors."""
    with loading("torch.export archive", REMEDY):
        return ExportedModel(torch.export.load(rewritten(archive)), context)


def load_program(archive: zipfile.ZipFile) -> torch.export.ExportedProgram:
    """Load a program that is to be run only, checked: it may take and give several tensors."""
    with loading("torch.export archive", REMEDY):
        return torch.export.load(rewritten(archive, trained=False))


def inputs_of(program: torch.export.ExportedProgram) -> list[TensorInfo]:
    """Return what a program takes, in order; raise `InvalidModel` for inputs that are no tensors."""
    nodes = {node.name: node for node in program.graph.nodes}
    found = []
    for name in map(str, program.graph_signature.user_inputs):
        tensor = _meta(nodes[name])
        dtype = str(tensor.dtype).removeprefix("torch.")
        sizes = tuple(size if isinstance(size, int) else -1 for size in tensor.shape)
        found.append(TensorInfo(name, datatype_named(dtype, name), sizes))
    return found


def signature_of(program: torch.export.ExportedProgram) -> ModelSignature:
    """Return what a program takes and gives; raise `InvalidModel` where it takes batches of one size only."""
    signature = program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}
    inputs = [_meta(nodes[str(name)]) for name in signature.user_inputs]
    outputs = [_meta(nodes[str(name)]) for name in signature.user_outputs]
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].dim() == 0:
        raise InvalidModel("the program must take one batch and give one tensor", remedy=REMEDY)
    batch: Any = inputs[0].shape[0]  # torch's annotations know no symbolic sizes
    if isinstance(batch, int):
        raise InvalidModel(
            f"the program was exported for batches of {batch} only, not with a dynamic batch axis",
            remedy=REMEDY,
        )
    return ModelSignature(_spec(inputs[0]), _spec(outputs[0]))


def _meta(node: fx.Node) -> Tensor:
    value: Any = node.meta["val"]
    if not isinstance(value, Tensor):
        raise InvalidModel("the program takes or gives what is no tensor", remedy=REMEDY)
    return value


def _spec(tensor: Tensor) -> TensorSpec:
    sizes = tuple(size if isinstance(size, int) else None for size in tensor.shape[1:])
    return TensorSpec(sizes, str(tensor.dtype).removeprefix("torch."))
