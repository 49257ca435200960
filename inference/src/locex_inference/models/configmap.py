"""The files of a mounted ConfigMap, as inference services have been configured with them: one model, its pipelines.

``model.json`` names the model (``model_name``, ``model_version``, ``library``, ``input_format``), ``format.json`` says
what callers send, ``preprocessing_pipeline.json`` and ``postprocessing_pipeline.json`` have the steps;
``transformation_pipeline.json`` is the older name of the former. ``setup.json`` names an inferencer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locex.errors import InvalidConfiguration
from locex.schemas.base import validate
from locex_inference.models.options import ModelOptions

SETUP, MODEL, FORMAT = "setup.json", "model.json", "format.json"
BEFORE, AFTER, OLDER = "preprocessing_pipeline.json", "postprocessing_pipeline.json", "transformation_pipeline.json"
_OLDER_INFERENCERS = {"tf_lite_inferencer": "tflite", "tflite_inferencer": "tflite", "base_inferencer": None}


@dataclass(frozen=True, slots=True)
class ConfiguredModel:
    """The model that the files name; ``name`` and ``version`` are empty where they name none."""

    name: str
    version: str
    library: str
    options: ModelOptions


def read_configured_model(folder: Path) -> ConfiguredModel | None:
    """Return what the files of a folder say, None where there are none; raise `InvalidConfiguration` naming one."""
    content = {name: _read(folder, name) for name in (SETUP, MODEL, FORMAT, BEFORE, AFTER, OLDER)}
    if all(one is None for one in content.values()):
        return None
    if content[BEFORE] is not None and content[OLDER] is not None:
        raise InvalidConfiguration(
            f"{BEFORE} and {OLDER} are the same pipeline, and both are there", remedy=f"remove {OLDER}"
        )
    model = _object(content[MODEL], MODEL)
    given: dict[str, Any] = {
        "preprocessing": content[BEFORE] if content[BEFORE] is not None else content[OLDER],
        "postprocessing": content[AFTER],
        "format": _side(content[FORMAT] if content[FORMAT] is not None else model.get("input_format"), FORMAT),
        "inferencer": _inferencer(_object(content[SETUP], SETUP)),
    }
    try:
        options = validate(ModelOptions, given)
    except InvalidConfiguration as error:
        files = f"{BEFORE}, {AFTER}, {FORMAT} and {SETUP}"
        raise InvalidConfiguration(
            f"the files {files} cannot be used: {error.message}", remedy=error.remedy, errors=error.errors
        ) from None
    return ConfiguredModel(
        str(model.get("model_name", "")), str(model.get("model_version", "")), str(model.get("library", "")), options
    )


def _read(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(f"{name} cannot be read: {error}", remedy="repair the file") from error


def _object(content: Any, name: str) -> Mapping[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise InvalidConfiguration(f"{name} holds {type(content).__name__}, not an object", remedy="repair the file")
    return content


def _side(content: Any, name: str) -> Any:
    """Return the format of inputs; a format of trainings has them as x."""
    found = _object(content, name)
    return found.get("x", found) or None


def _inferencer(setup: Mapping[str, Any]) -> str | None:
    """Return the inferencer's plugin; names of older services mean the format of the artefact or a plugin here."""
    inference = _object(setup.get("inference"), SETUP)
    named = inference.get("inferencer")
    named = _object(named, SETUP).get("id") if isinstance(named, Mapping) else named
    if named is None:
        return None
    return _OLDER_INFERENCERS.get(str(named), str(named))
