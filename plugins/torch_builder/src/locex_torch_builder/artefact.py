"""Model artefacts of PyTorch: known by their content, loaded, and written anew for an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from locex.api import LoadContext
from locex.artefacts.architecture import write_initial
from locex.artefacts.archive import open_archive
from locex.artefacts.formats import wrong_format
from locex.artefacts.manifest import MANIFEST, WEIGHTS
from locex_torch_builder.architecture import load_architecture, weights_of
from locex_torch_builder.exported.program import is_exported, load_exported
from locex_torch_builder.model import LoadedModel
from locex_torch_builder.torchscript import is_torchscript, load_torchscript, nested_program

ACCEPTED = (
    f"a zip with {MANIFEST} and {WEIGHTS}, a torch.export archive (torch.export.save), or a TorchScript file "
    "(torch.jit.script(model).save(path))"
)


def load_model(context: LoadContext) -> LoadedModel:
    """Return the artefact's model on the CPU, or raise `InvalidModel`; pickles are refused unread."""
    with context.artefact.path.open("rb") as file:
        if file.read(2) != b"PK":
            raise wrong_format(file, "pytorch", ACCEPTED)
        with open_archive(file) as archive:
            names = archive.namelist()
            if MANIFEST in names:
                return load_architecture(archive, context)
            if is_exported(names):
                return load_exported(archive, context)
            size = context.artefact.path.stat().st_size
            program = file if is_torchscript(names) else nested_program(archive, size, ACCEPTED)
            if program is None:
                raise wrong_format(file, "pytorch", ACCEPTED)
            return load_torchscript(program, context)


def write_architecture(path: Path, *, architecture: str, config: Mapping[str, Any], seed: int = 0) -> None:
    """Write an artefact with weights drawn from ``seed``: equal arguments give equal bytes.

    Raise `UnknownPlugin` or `InvalidConfiguration` where the architecture or its fields are wrong.
    """
    write_initial(path, library="pytorch", architecture=architecture, config=config, seed=seed, weights_of=weights_of)
