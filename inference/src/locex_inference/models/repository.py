"""The folder of models that a service begins with: ``<model>/<version>/<file>``, and ``<model>/model.json``."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from locex.artefacts.formats import format_of
from locex.errors import InvalidConfiguration, InvalidModel
from locex.pipelines.saved import SavedPipeline
from locex.schemas.base import validate
from locex.schemas.model import Name
from locex_inference.models.configmap import ConfiguredModel
from locex_inference.models.golden import JSON, NPZ
from locex_inference.models.options import ModelOptions

log = logging.getLogger(__name__)
OPTIONS, PIPELINE = "model.json", "pipeline.json"
_BESIDE = frozenset({JSON, NPZ, OPTIONS, PIPELINE})
_NAME = TypeAdapter(Name)
_NO_MODELS = frozenset({"hdf5", "pickle", "safetensors"})
_TRITON_ONLY = frozenset(
    {"name", "platform", "backend", "input", "output", "version_policy", "instance_group", "default_model_filename"}
)
"""What Triton's clients write into a configuration and what the artefact tells itself here."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """Models with their versions as folders. Names that are no names of models are passed over.

    ``configured`` is what a ConfigMap says of one model, or, without a name, of all that have no ``model.json``.
    """

    path: Path | None
    configured: ConfiguredModel | None = None

    def models(self) -> list[str]:
        """Return the names of the models that have a version."""
        return [name for name in _names(self.path) if self.versions(name)] if self.path else []

    def versions(self, model: str) -> list[str]:
        """Return a model's versions, oldest first: numbers by value, after names in their order."""
        return sorted(_names(self.path / safe_name(model)), key=version_key) if self.path else []

    def chosen(self, model: str) -> str:
        """Return the one version that the ConfigMap names; empty where it names none."""
        return self.configured.version if self.configured and self.configured.name == model else ""

    def options(self, model: str) -> ModelOptions:
        """Return what ``model.json`` says; raise `InvalidConfiguration`."""
        configured = self.configured
        applies = configured is not None and configured.name in {"", model}
        otherwise = configured.options if configured is not None and applies else ModelOptions()
        if self.path is None:
            return otherwise
        path = self.path / safe_name(model) / OPTIONS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return otherwise
        except (OSError, ValueError) as error:
            raise InvalidConfiguration(f"{path.name} of {model!r} cannot be read: {error}") from error
        return options_of(content)

    def version(self, model: str, version: str) -> Path:
        """Return the folder of a version; raise `InvalidModel` where there is none."""
        folder = self.path / safe_name(model) / safe_name(version) if self.path else None
        if folder is None or not folder.is_dir():
            raise InvalidModel(f"the folder of models has no {model!r} version {version!r}", remedy="put it there")
        return folder


def options_of(content: Any) -> ModelOptions:
    """Return the options that a configuration gives: ours, or those words of Triton's that have a meaning here."""
    if not isinstance(content, Mapping):
        return validate(ModelOptions, content)
    given = {key: value for key, value in content.items() if key not in _TRITON_ONLY}
    if "dynamic_batching" in given and isinstance(given.pop("dynamic_batching"), Mapping):
        given.setdefault("micro_batching", "on")
    return validate(ModelOptions, given)


def artefact_in(folder: Path) -> Path:
    """Return the model's file in a version's folder; raise `InvalidModel` where it is none or not the only one."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and _is_artefact(path.name))
    if len(files) > 1:
        files = [path for path in files if _format(path) not in {None, *_NO_MODELS}] or files
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise InvalidModel(
            f"the version's folder must hold one model, it holds: {names}", remedy="leave the one that is to be served"
        )
    return files[0]


def pipeline_in(folder: Path) -> SavedPipeline | None:
    """Return the training's pipeline beside a model; None where there is none. Raise `InvalidModel`."""
    path = folder / PIPELINE
    if not path.is_file():
        return None
    try:
        return SavedPipeline.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidModel(f"{PIPELINE} is no kept pipeline: {error}", remedy="take it from the lineage") from error


def safe_name(name: str) -> str:
    """Return a name that can stand in a path; raise `InvalidModel` for any other."""
    try:
        return _NAME.validate_python(name)
    except ValidationError:
        raise InvalidModel(
            f"{name[:200]!r} is no name: letters, digits, dot, dash and underscore, up to 128, a letter or digit first"
        ) from None


def safe_path(name: str) -> tuple[str, ...]:
    """Return the parts of a file's path within a version; raise `InvalidModel` for one that could leave it."""
    parts = PurePosixPath(name.removeprefix("file:")).parts
    if not 0 < len(parts) <= 4:  # noqa: PLR2004 -- version, folder, folder, file
        raise InvalidModel(f"{name[:200]!r} is no path within a version")
    return tuple(map(safe_name, parts))


def version_key(version: str) -> list[tuple[int, int, str]]:
    """Return what orders versions: 2 before 10, v1.9 before v1.10."""
    parts = re.findall(r"\d+|\D+", version)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _names(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if path.is_dir():
                found.append(safe_name(path.name))
        except InvalidModel as error:
            log.warning("%s is passed over: %s", path, error.message)
    return found


def _is_artefact(name: str) -> bool:
    return name not in _BESIDE and not name.startswith((".", "README"))


def _format(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return format_of(file)
    except InvalidModel:
        return None
