"""JSON that holds NumPy arrays, apart: text goes into a JSON file, arrays beside it into safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from locex.api import Array

_ARRAY = "__array__"


def without_arrays(value: Any, arrays: dict[str, Array]) -> Any:
    """Return JSON in which a reference stands for every array; put the arrays, by reference, into ``arrays``."""
    if isinstance(value, np.ndarray):
        key = str(len(arrays))
        arrays[key] = np.asarray(value, order="C")
        return {_ARRAY: key}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: without_arrays(part, arrays) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_arrays(part, arrays) for part in value]
    return value


def with_arrays(value: Any, arrays: Mapping[str, Array]) -> Any:
    """Return what `without_arrays` took apart; raise `KeyError` where an array is missing."""
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        return {key: with_arrays(part, arrays) for key, part in value.items()}
    if isinstance(value, list):
        return [with_arrays(part, arrays) for part in value]
    return value
