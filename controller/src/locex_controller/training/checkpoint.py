"""The state of a training after a round: weights, round and what the aggregation remembers.

``checkpoint.safetensors`` holds the weights; its metadata holds the round, the aggregation's state as JSON and the
name of a file with the state's arrays, which is written first. So one rename commits everything.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from locex.artefacts.nested import with_arrays, without_arrays
from locex_controller.training.checkpoint_file import CHECKPOINT
from locex_controller.training.parameters import read_parameters, write_parameters

if TYPE_CHECKING:
    from locex.api import Array


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
    state = without_arrays(checkpoint.state, arrays)
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
    state = with_arrays(json.loads(metadata["state"]), arrays)
    return Checkpoint(
        round=int(metadata["round"]),
        names=names if json.loads(metadata["named"]) else [],
        parameters=parameters,
        state=state,
        report=json.loads(metadata["report"]),
    )
