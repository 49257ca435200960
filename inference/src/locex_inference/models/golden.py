"""Golden inputs and outputs of a version: ``golden.json`` or ``golden.npz`` beside the model.

``golden.json`` is a request and its response as the protocol writes them (``{"inputs": […], "outputs": […]}``);
``golden.npz`` has arrays named ``inputs/<name>`` and ``outputs/<name>``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from locex.artefacts.archive import open_archive
from locex.errors import InvalidModel, LocexError
from locex_inference.tensors import from_values

if TYPE_CHECKING:
    from locex.api import Array

JSON, NPZ = "golden.json", "golden.npz"
_MAX_BYTES = 64 * 2**20
_REMEDY = "write golden.json as a request with its response, or golden.npz with inputs/<name> and outputs/<name>"


@dataclass(frozen=True, slots=True)
class Golden:
    """Tensors as callers send them, and as they must be answered."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]

    @staticmethod
    def difference(have: Array, want: Array) -> float:
        """Return the greatest |a - b| / (1 + |b|); infinity for other shapes, texts or NaN."""
        if have.shape != want.shape:
            return float("inf")
        if have.dtype.kind not in "fV" or want.dtype.kind not in "fV":
            return 0.0 if np.array_equal(have, want) else float("inf")
        wide = want.astype(np.float64)
        found = np.abs(have.astype(np.float64) - wide) / (1 + np.abs(wide))
        return float(np.nan_to_num(found, nan=np.inf).max(initial=0.0))


def read_golden(folder: Path) -> Golden | None:
    """Return a version's golden tensors, None where it has none; raise `InvalidModel` for a file that is no such."""
    for name, read in ((JSON, _from_json), (NPZ, _from_npz)):
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidModel(f"{name} is larger than {_MAX_BYTES} bytes", remedy="keep a few examples only")
        try:
            golden = read(path)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, LocexError) as error:
            raise InvalidModel(f"{name} cannot be used: {error}", remedy=_REMEDY) from error
        if not golden.outputs:
            raise InvalidModel(f"{name} has no outputs", remedy=_REMEDY)
        return golden
    return None


def _from_json(path: Path) -> Golden:
    content = json.loads(path.read_text(encoding="utf-8"))
    return Golden(*({tensor["name"]: _tensor(tensor) for tensor in content[side]} for side in ("inputs", "outputs")))


def _tensor(content: dict[str, Any]) -> Array:
    return from_values(content["data"], content["datatype"], content["shape"], content["name"])


def _from_npz(path: Path) -> Golden:
    sides: dict[str, dict[str, Array]] = {"inputs": {}, "outputs": {}}
    with path.open("rb") as file:
        open_archive(file).close()
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays:
            side, _, name = key.partition("/")
            sides[side][name] = arrays[key]
    return Golden(**sides)
