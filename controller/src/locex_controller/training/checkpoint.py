"""The state of a training after a round: weights, round and what the aggregation remembers.

``checkpoint.safetensors`` holds the weights; its metadata holds the round, the aggregation's state as JSON and the
name of a file with the state's arrays, which is written first. So one rename commits everything.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from locex_controller.training.checkpoint_file import CHECKPOINT
from locex_controller.training.parameters import read_parameters, write_parameters

if TYPE_CHECKING:
    from locex.api import Array


_ARRAY = "__array__"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a training goes on from. No names: tensors are known by their order only.

    ``report`` is what was to be said of the round's training, for a process that dies before it could.
    """

    round: int
    names: list[str]
    parameters: list[Array]
    state: dict[str, Any]
    report: dict[str, Any] = field(default_factory=dict)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint."""
    arrays: dict[str, Array] = {}
    state = _without_arrays(checkpoint.state, arrays)
    metadata = {"round": str(checkpoint.round), "state": json.dumps(state), "report": json.dumps(checkpoint.report)}
    if arrays:
        metadata["state_arrays"] = f"state-{checkpoint.round}.safetensors"
        write_parameters(folder / metadata["state_arrays"], list(arrays), list(arrays.values()), {})
    names = checkpoint.names or [str(index) for index in range(len(checkpoint.parameters))]
    metadata["named"] = json.dumps(bool(checkpoint.names))
    write_parameters(folder / CHECKPOINT, names, checkpoint.parameters, metadata)
    for old in folder.glob("state-*.safetensors"):
        if old.name != metadata.get("state_arrays"):
            with contextlib.suppress(FileNotFoundError):
                old.unlink()


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the folder's checkpoint, or None before the first."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    names, parameters, metadata = read_parameters(path)
    arrays: dict[str, Array] = {}
    if "state_arrays" in metadata:
        keys, values, _ = read_parameters(folder / metadata["state_arrays"])
        arrays = dict(zip(keys, values, strict=True))
    state = _with_arrays(json.loads(metadata["state"]), arrays)
    return Checkpoint(
        round=int(metadata["round"]),
        names=names if json.loads(metadata["named"]) else [],
        parameters=parameters,
        state=state,
        report=json.loads(metadata["report"]),
    )


def _without_arrays(value: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(value, np.ndarray):
        key = str(len(arrays))
        arrays[key] = np.asarray(value, order="C")
        return {_ARRAY: key}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _without_arrays(part, arrays) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(part, arrays) for part in value]
    return value


def _with_arrays(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        return {key: _with_arrays(part, arrays) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_arrays(part, arrays) for part in value]
    return value
