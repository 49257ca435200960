"""A model's tensors by name, in the order of ``model.weights``, which ``get_weights()`` has too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from locex.api import Array


def named_weights(model: Any) -> dict[str, Any]:
    """Return the model's variables; a name that comes twice gets a number."""
    named: dict[str, Any] = {}
    for weight in model.weights:
        path = getattr(weight, "path", None) or weight.name.removesuffix(":0")
        # a model that was just made names itself, one that was loaded does not
        name = first = path.removeprefix(f"{model.name}/")
        number = 1
        while name in named:
            name = f"{first}_{number}"
            number += 1
        named[name] = weight
    return named


def read(named: Mapping[str, Any]) -> dict[str, Array]:
    """Return copies of the values, each with its own dtype."""
    return {name: np.array(weight.numpy(), order="C", copy=True) for name, weight in named.items()}


def assign(named: Mapping[str, Any], values: Mapping[str, Array]) -> None:
    """Set every variable; integers take the nearest integer of an average."""
    for name, weight in named.items():
        dtype = np.dtype(getattr(weight.dtype, "as_numpy_dtype", weight.dtype))
        value = values[name]
        if dtype.kind in "iu" and value.dtype.kind == "f":
            value = np.rint(value)
        weight.assign(value.astype(dtype, copy=False))
