"""A named architecture with safetensors weights: the artefact of `locex.artefacts.manifest`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from locex.api import LoadContext, ModelSignature
from locex.artefacts.architecture import create, write_trained
from locex.artefacts.archive import read_entry
from locex.artefacts.manifest import WEIGHTS, Manifest, read_manifest, require_fitting
from locex.errors import InvalidModel
from locex_torch_builder.model import LoadedModel


class ArchitectureModel(LoadedModel):
    """A module made by an architecture's plugin."""

    kind = "named architecture"
    formats = frozenset({"safetensors", "pt2", "torchscript", "onnx"})

    def __init__(self, module: nn.Module, manifest: Manifest, context: LoadContext) -> None:
        """Take the signature from the module, where it tells one."""
        super().__init__(module, getattr(module, "signature", ModelSignature(None, None)), context.warn)
        self._manifest = manifest

    def write(self, folder: Path) -> Path:
        """Write ``model.zip``."""
        return write_trained(folder, self._manifest, weights_of(self.module))


def load_architecture(archive: zipfile.ZipFile, context: LoadContext) -> ArchitectureModel:
    """Make the module that the manifest names, with the weights of the archive if it holds any."""
    manifest = read_manifest(archive, "pytorch")
    module = create(manifest, context)
    if WEIGHTS in archive.namelist():
        _load_weights(module, read_entry(archive, WEIGHTS))
    return ArchitectureModel(module, manifest, context)


def weights_of(module: nn.Module) -> bytes:
    """Return every tensor of the module's ``state_dict`` as safetensors."""
    # clones: safetensors refuses tensors that share memory, as tied weights do
    weights = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
    # safetensors sorts by name; the classic wire of federations knows tensors by the model's order only
    return safetensors.torch.save(weights, metadata={"names": json.dumps(list(weights))})


def _load_weights(module: nn.Module, content: bytes) -> None:
    try:
        weights = safetensors.torch.load(content)
    except SafetensorError as error:
        raise InvalidModel(f"{WEIGHTS} is corrupt: {error}", remedy="upload the artefact again") from error
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    require_fitting(own, {name: tensor.shape for name, tensor in weights.items()})
    module.load_state_dict(weights)
