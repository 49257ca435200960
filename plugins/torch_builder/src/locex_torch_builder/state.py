"""The state of a training beside its parameters: one safetensors file with the rest as JSON in its header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from locex.artefacts.state import incompatible, require_version
from locex_torch_builder.schedule import Schedule

FILE = "torch_state.safetensors"
DISTRIBUTION = "locex-torch-builder"
_TENSOR = "tensor of this file"


def save_state(folder: Path, optimizer: Optimizer, schedule: Schedule) -> None:
    """Write the state in one replacement, so that a crash leaves the old file or the new one."""
    tensors: dict[str, Tensor] = {}
    content = {
        "version": version(DISTRIBUTION),
        "kind": _kind(optimizer, schedule),
        "groups": [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups],
        "weights": {
            str(index): _taken_apart(values, f"{index}", tensors)
            for index, values in optimizer.state_dict()["state"].items()
        },
        "schedule": schedule.state(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{FILE}.new"
    save_file(tensors, temporary, metadata={"state": json.dumps(content)})
    temporary.replace(folder / FILE)


def load_state(folder: Path, optimizer: Optimizer, schedule: Schedule) -> None:
    """Take up a saved state.

    Raise `LocexError` (``state-incompatible``) where it is not of this training's kind; a file that cannot be read
    raises `OSError`, `ValueError` or `SafetensorError`.
    """
    with safe_open(os.fspath(folder / FILE), framework="pt") as file:
        content = json.loads((file.metadata() or {}).get("state", ""))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
    _check_origin(content, _kind(optimizer, schedule))
    optimizer.load_state_dict(_nested(optimizer, content, tensors))
    schedule.restore(content["schedule"])


def _taken_apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return JSON in which names stand for the tensors of a state, which lie in lists and dictionaries (L-BFGS)."""
    if isinstance(value, Tensor):
        tensors[name] = value.contiguous()
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {key: _taken_apart(part, f"{name}.{key}", tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_taken_apart(part, f"{name}.{index}", tensors) for index, part in enumerate(value)]
    return value


def _put_together(value: Any, tensors: Mapping[str, Tensor], parameter: Tensor) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return _placed(tensors[value[_TENSOR]], parameter)
        return {key: _put_together(part, tensors, parameter) for key, part in value.items()}
    if isinstance(value, list):
        return [_put_together(part, tensors, parameter) for part in value]
    return value


def _nested(optimizer: Optimizer, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    current = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        int(index): _put_together(values, tensors, parameters[int(index)])
        for index, values in content["weights"].items()
    }
    groups = [
        {key: _like(value, now.get(key)) for key, value in saved.items()} | {"params": now["params"]}
        for saved, now in zip(content["groups"], current["param_groups"], strict=True)
    ]
    return {"state": state, "param_groups": groups}


def _placed(value: Tensor, parameter: Tensor) -> Tensor:
    """Give a moment its parameter's memory layout, which fused kernels take for granted.

    A copy in any case: a tensor of a file begins anywhere, and sums depend on where memory begins.
    """
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return value.clone()


def _like(value: Any, current: Any) -> Any:
    return tuple(value) if isinstance(current, tuple) else value


def _kind(optimizer: Optimizer, schedule: Schedule) -> str:
    """Return the classes that the state belongs to."""
    return f"{type(optimizer).__name__} with {schedule.kind or 'no scheduler'}"


def _check_origin(content: Mapping[str, Any], kind: str) -> None:
    require_version(DISTRIBUTION, content["version"])
    if content["kind"] != kind:
        raise incompatible(f"the saved state is of {content['kind']}, the job has {kind}")
