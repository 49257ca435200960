"""TorchScript: a program of PyTorch's own interpreter, which needs no Python. Deprecated, and yet widely stored."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

import torch
from torch import nn

from locex.api import LoadContext, ModelSignature
from locex.artefacts.archive import open_archive, read_entry
from locex.artefacts.formats import wrong_format
from locex.artefacts.programs import require_programs
from locex_torch_builder.model import LoadedModel, loading

SCRIPTED = "scripted_model.pt"


class ScriptedModel(LoadedModel):
    """A TorchScript program."""

    kind = "TorchScript program"
    formats = frozenset({"safetensors", "torchscript", "onnx"})  # torch.export takes no TorchScript

    def __init__(self, module: nn.Module, context: LoadContext) -> None:
        """Leave the signature open: a program does not tell it."""
        super().__init__(module, ModelSignature(None, None), context.warn)

    def write(self, folder: Path) -> Path:
        """Write ``model.pt``."""
        path = folder / "model.pt"
        with quietly():
            torch.jit.save(self.module, path)
        return path


def is_torchscript(names: Iterable[str]) -> bool:
    """Return whether an archive's entries are those of a program."""
    paths = [PurePosixPath(name).parts for name in names]
    inner = {parts[1] for parts in paths if len(parts) > 1}
    return {"constants.pkl", "code"} <= inner


def load_torchscript(file: IO[bytes], context: LoadContext) -> ScriptedModel:
    """Load a program onto the CPU, if the site takes programs."""
    require_programs(context, "TorchScript", "a torch.export archive (.pt2), or a named architecture with weights")
    file.seek(0)
    with loading("TorchScript program", "save it again with torch.jit.save"), quietly():
        module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
    return ScriptedModel(module, context)


def nested_program(archive: zipfile.ZipFile, size: int, accepted: str) -> IO[bytes] | None:
    """Return the ``scripted_model.pt`` that lies in some folder of a zip, checked; None where there is not one.

    ``size`` is the zip's own, in bytes.
    """
    scripts = [name for name in archive.namelist() if PurePosixPath(name).name == SCRIPTED]
    if len(scripts) != 1:
        return None
    script = io.BytesIO(read_entry(archive, scripts[0]))
    if script.getvalue()[:2] != b"PK":
        raise wrong_format(script, "pytorch", accepted)
    with open_archive(script, packed=size) as inner:
        if not is_torchscript(inner.namelist()):
            raise wrong_format(script, "pytorch", accepted)
    return script


def quietly() -> warnings.catch_warnings:
    """Keep PyTorch from warning of TorchScript's deprecation, which nobody who reads a job's log can change."""
    return warnings.catch_warnings(action="ignore", category=DeprecationWarning)
