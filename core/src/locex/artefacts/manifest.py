"""An architecture by name with safetensors weights: a zip with ``manifest.json`` and ``weights.safetensors``.

The manifest::

    {"format": "architecture", "library": "pytorch", "architecture": "cnn", "config": {…}, "seed": 0}

Weights hold every tensor of the model; where they are absent, they are drawn from ``seed``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from locex.artefacts.archive import read_entry
from locex.errors import InvalidConfiguration, InvalidModel
from locex.schemas.base import Configuration, validate

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
MAX_MANIFEST = 2**20


class Manifest(Configuration):
    """What ``manifest.json`` says."""

    format: Literal["architecture"] = Field(default="architecture", description="The artefact's kind.")
    library: str = Field(description="The builder.")
    architecture: str = Field(description="A name of the group locex.architecture without its library.")
    config: dict[str, Any] = Field(default_factory=dict, description="The architecture's own fields.")
    seed: int | None = Field(default=None, description="What the initial weights are drawn from; absent: the job's.")


def library_of(archive: zipfile.ZipFile) -> str:
    """Return the library that an archive's manifest names; raise `InvalidModel` where it is none."""
    return _read(archive).library


def read_manifest(archive: zipfile.ZipFile, library: str) -> Manifest:
    """Return an archive's manifest; raise `InvalidModel` where it is none, or of another library."""
    manifest = _read(archive)
    if manifest.library != library:
        raise InvalidModel(
            f"the artefact is of the library {manifest.library!r}, its metadata says {library!r}",
            remedy="correct meta.library in the model's metadata, or upload the right file",
        )
    return manifest


def _read(archive: zipfile.ZipFile) -> Manifest:
    remedy = "write the artefact with the builder's write_architecture"
    if archive.getinfo(MANIFEST).file_size > MAX_MANIFEST:
        raise InvalidModel(f"the artefact's manifest is larger than {MAX_MANIFEST} bytes", remedy=remedy)
    try:
        return validate(Manifest, json.loads(read_entry(archive, MANIFEST)))
    except InvalidConfiguration as error:
        raise InvalidModel(f"the artefact's manifest is wrong: {error.message}", remedy=remedy) from error
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"the artefact's manifest is not JSON: {error}", remedy=remedy) from error


def write_artefact(path: Path, manifest: Manifest, weights: bytes) -> None:
    """Write manifest and safetensors weights, uncompressed and without time stamps: equal content, equal bytes."""
    content = {
        MANIFEST: json.dumps(manifest.model_dump(exclude_none=True), indent=1, sort_keys=True).encode(),
        WEIGHTS: weights,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data)


def require_fitting(own: Mapping[str, Sequence[int]], given: Mapping[str, Sequence[int]]) -> None:
    """Raise `InvalidModel` where the shapes of weights, by name, are not those of the architecture."""
    faults = [f"{name} is missing" for name in own.keys() - given.keys()]
    faults += [f"{name} is not of the architecture" for name in given.keys() - own.keys()]
    faults += [
        f"{name} has shape {list(given[name])}, not {list(own[name])}"
        for name in own.keys() & given.keys()
        if list(given[name]) != list(own[name])
    ]
    if faults:
        raise InvalidModel(
            f"{WEIGHTS} does not fit the architecture: {'; '.join(sorted(faults)[:10])}",
            remedy="save every tensor of the model, made with the same config as the manifest's",
        )
