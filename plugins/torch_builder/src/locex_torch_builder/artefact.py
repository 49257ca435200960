"""Model artefacts of PyTorch: an architecture by name with safetensors weights, or a TorchScript program.

An architecture's artefact is a zip with ``manifest.json``::

    {"format": "architecture", "library": "pytorch", "architecture": "cnn", "config": {…}, "seed": 0}

and, optionally, ``weights.safetensors`` with every tensor of the module's ``state_dict``. Where weights are absent,
they are drawn from ``seed``. TorchScript is known by its content, bare or as ``scripted_model.pt`` somewhere in a zip.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import safetensors.torch
import torch
from pydantic import Field
from safetensors import SafetensorError
from torch import nn

from locex.api import BuildContext, ModelSignature
from locex.errors import InvalidConfiguration, InvalidModel, UnknownPlugin
from locex.schemas.base import Configuration, validate
from locex_torch_builder.archive import open_archive, read_entry

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
SCRIPTED = "scripted_model.pt"
MAX_MANIFEST = 2**20
ACCEPTED = f"a zip with {MANIFEST} and {WEIGHTS}, or a TorchScript file"


class Manifest(Configuration):
    """What ``manifest.json`` says."""

    format: Literal["architecture"] = Field(description="The artefact's kind.")
    library: Literal["pytorch"] = Field(description="The builder.")
    architecture: str = Field(description="A name of the group locex.architecture without its library.")
    config: dict[str, Any] = Field(default_factory=dict, description="The architecture's own fields.")
    seed: int | None = Field(default=None, description="What the initial weights are drawn from; absent: the job's.")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A module with its signature, and its manifest unless it is TorchScript."""

    module: nn.Module
    signature: ModelSignature
    manifest: Manifest | None


def load_model(context: BuildContext) -> LoadedModel:
    """Return the artefact's model on the CPU, or raise `InvalidModel`; pickles are refused unread."""
    with context.artefact.path.open("rb") as file:
        start = file.read(2)
        if start != b"PK":
            raise _refused(pickled=start[:1] == b"\x80")
        with open_archive(file) as archive:
            names = archive.namelist()
            if MANIFEST in names:
                return _load_architecture(archive, context)
            if _is_torchscript(names):
                file.seek(0)
                return _load_torchscript(file)
            return _load_torchscript(_nested_script(archive))


def write_architecture(path: Path, *, architecture: str, config: Mapping[str, Any], seed: int = 0) -> None:
    """Write an artefact with weights drawn from ``seed``: equal arguments give equal bytes.

    Raise `UnknownPlugin` or `InvalidConfiguration` where the architecture or its fields are wrong.
    """
    plugins = {entry.name: entry for entry in entry_points(group="locex.architecture")}
    if f"pytorch.{architecture}" not in plugins:
        raise UnknownPlugin("architecture", f"pytorch.{architecture}", plugins)
    plugin = plugins[f"pytorch.{architecture}"].load()()
    fields = validate(plugin.locex_config_model(), dict(config), at="/config")
    module = plugin.locex_create_architecture(fields, seed)
    manifest = Manifest(
        format="architecture", library="pytorch", architecture=architecture, config=dict(config), seed=seed
    )
    write_artefact(path, manifest, module)


def write_artefact(path: Path, manifest: Manifest, module: nn.Module) -> None:
    """Write manifest and weights, uncompressed and without time stamps."""
    # clones: safetensors refuses tensors that share memory, as tied weights do
    weights = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
    content = {
        MANIFEST: json.dumps(manifest.model_dump(exclude_none=True), indent=1, sort_keys=True).encode(),
        # safetensors sorts by name; the classic wire of federations knows tensors by the model's order only
        WEIGHTS: safetensors.torch.save(weights, metadata={"names": json.dumps(list(weights))}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data)


def _load_architecture(archive: zipfile.ZipFile, context: BuildContext) -> LoadedModel:
    manifest = _read_manifest(archive)
    try:
        module = context.architecture(manifest.architecture, manifest.config, manifest.seed)
    except InvalidConfiguration as error:
        raise InvalidModel(
            f"the artefact's manifest does not fit the architecture {manifest.architecture!r}: {error.message}",
            remedy="correct the manifest's config, and upload the artefact as a new version",
        ) from error
    if WEIGHTS in archive.namelist():
        _load_weights(module, read_entry(archive, WEIGHTS))
    return LoadedModel(module, getattr(module, "signature", ModelSignature(None, None)), manifest)


def _read_manifest(archive: zipfile.ZipFile) -> Manifest:
    remedy = "write artefacts with locex_torch_builder.artefact.write_architecture"
    if archive.getinfo(MANIFEST).file_size > MAX_MANIFEST:
        raise InvalidModel(f"the artefact's manifest is larger than {MAX_MANIFEST} bytes", remedy=remedy)
    try:
        return validate(Manifest, json.loads(read_entry(archive, MANIFEST)))
    except InvalidConfiguration as error:
        raise InvalidModel(f"the artefact's manifest is wrong: {error.message}", remedy=remedy) from error
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"the artefact's manifest is not JSON: {error}", remedy=remedy) from error


def _load_weights(module: nn.Module, content: bytes) -> None:
    try:
        weights = safetensors.torch.load(content)
    except SafetensorError as error:
        raise InvalidModel(f"{WEIGHTS} is corrupt: {error}", remedy="upload the artefact again") from error
    own = module.state_dict()
    faults = [f"{name} is missing" for name in own.keys() - weights.keys()]
    faults += [f"{name} is not of the architecture" for name in weights.keys() - own.keys()]
    faults += [
        f"{name} has shape {list(weights[name].shape)}, not {list(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    if faults:
        raise InvalidModel(
            f"{WEIGHTS} does not fit the architecture: {'; '.join(sorted(faults)[:10])}",
            remedy="save every tensor of the module's state_dict, made with the same config as the manifest's",
        )
    module.load_state_dict(weights)


def _is_torchscript(names: Iterable[str]) -> bool:
    paths = [PurePosixPath(name).parts for name in names]
    inner = {parts[1] for parts in paths if len(parts) > 1}
    return {"constants.pkl", "code"} <= inner


def _nested_script(archive: zipfile.ZipFile) -> IO[bytes]:
    names = archive.namelist()
    scripts = [name for name in names if PurePosixPath(name).name == SCRIPTED]
    if len(scripts) != 1:
        raise _refused(pickled=any(name.endswith((".pkl", ".pth", ".pt", ".pickle", ".bin")) for name in names))
    script = io.BytesIO(read_entry(archive, scripts[0]))
    if script.getvalue()[:2] != b"PK":
        raise _refused(pickled=True)
    with open_archive(script) as inner:
        if not _is_torchscript(inner.namelist()):
            raise _refused(pickled=True)
    script.seek(0)
    return script


def _load_torchscript(file: IO[bytes]) -> LoadedModel:
    try:
        with warnings.catch_warnings():  # deprecated, and yet what today's repositories hold
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise InvalidModel(
            f"PyTorch cannot load the TorchScript program: {error}", remedy="save it again with torch.jit.save"
        ) from error
    return LoadedModel(module, ModelSignature(None, None), None)


def _refused(*, pickled: bool) -> InvalidModel:
    if pickled:
        return InvalidModel(
            "the artefact is a pickle (torch.save), which could run any code when loaded",
            remedy=f"upload {ACCEPTED} (torch.jit.script(model).save(path))",
        )
    return InvalidModel("the artefact is of an unknown format", remedy=f"upload {ACCEPTED}")
