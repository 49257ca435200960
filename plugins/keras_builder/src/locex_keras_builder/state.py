"""The state of a training beside its parameters: one safetensors file with the rest as JSON in its header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.numpy
from safetensors import safe_open

from locex.artefacts.state import incompatible, require_version
from locex_keras_builder.kerases import Keras
from locex_keras_builder.variables import assign, read

FILE = "keras_state.safetensors"
DISTRIBUTION = "locex-keras-builder"


def save_state(folder: Path, keras: Keras, optimizer: Any, rest: Mapping[str, Any]) -> None:
    """Write the state in one replacement, so that a crash leaves the old file or the new one."""
    content = {"version": version(DISTRIBUTION), **_origin(keras, optimizer), "rest": dict(rest)}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{FILE}.new"
    safetensors.numpy.save_file(
        read(_variables(optimizer)), temporary, metadata={"state": json.dumps(content, allow_nan=False)}
    )
    temporary.replace(folder / FILE)


def load_state(folder: Path, keras: Keras, optimizer: Any) -> dict[str, Any]:
    """Take up a saved state of the optimizer, and return the rest.

    Raise `LocexError` (``state-incompatible``) where it is not of this training's kind; a file that cannot be read
    raises `OSError`, `ValueError` or `SafetensorError`.
    """
    with safe_open(os.fspath(folder / FILE), framework="np") as file:
        content = json.loads((file.metadata() or {}).get("state", ""))
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
    variables = _variables(optimizer)
    _check_origin(content, keras, optimizer)
    if {name: tuple(one.shape) for name, one in variables.items()} != {name: one.shape for name, one in arrays.items()}:
        raise incompatible("the saved state is of another model or of other fields of the optimizer")
    assign(variables, arrays)
    rest: dict[str, Any] = content["rest"]
    return rest


def _variables(optimizer: Any) -> dict[str, Any]:
    """Return the optimizer's variables by their place: names differ between two models of one process."""
    variables = list(optimizer.variables)
    product = getattr(optimizer, "_u_product", None)
    if product is not None and not any(one is product for one in variables):
        variables.append(product)  # tf_keras' Nadam leaves it out
    return {f"{number:05}": variable for number, variable in enumerate(variables)}


def _origin(keras: Keras, optimizer: Any) -> dict[str, str]:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return {"keras": keras.name, "optimizer": type(inner).__name__}


def _check_origin(content: Mapping[str, Any], keras: Keras, optimizer: Any) -> None:
    require_version(DISTRIBUTION, content["version"])
    for what, name in _origin(keras, optimizer).items():
        if content[what] != name:
            raise incompatible(f"the saved state is of {content[what]}, the job has {name}")
