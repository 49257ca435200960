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

from locex.errors import LocexError
from locex_torch_builder.schedule import Schedule

FILE = "torch_state.safetensors"
DISTRIBUTION = "locex-torch-builder"


def save_state(folder: Path, optimizer: Optimizer, schedule: Schedule) -> None:
    """Write the state in one replacement, so that a crash leaves the old file or the new one."""
    tensors, scalars = _flattened(optimizer)
    content = {
        "version": version(DISTRIBUTION),
        "optimizer": type(optimizer).__name__,
        "groups": [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups],
        "scalars": scalars,
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
    _check_origin(content, optimizer)
    optimizer.load_state_dict(_nested(optimizer, content, tensors))
    schedule.restore(content["schedule"])


def _flattened(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value.contiguous()
            else:
                scalars[f"{index}.{name}"] = value
    return tensors, scalars


def _nested(optimizer: Optimizer, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    current = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**content["scalars"], **tensors}.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = _placed(value, parameters[int(index)])
    groups = [
        {key: _like(value, now.get(key)) for key, value in saved.items()} | {"params": now["params"]}
        for saved, now in zip(content["groups"], current["param_groups"], strict=True)
    ]
    return {"state": state, "param_groups": groups}


def _placed(value: Any, parameter: Tensor) -> Any:
    """Give a moment its parameter's memory layout, which fused kernels take for granted."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return value


def _like(value: Any, current: Any) -> Any:
    return tuple(value) if isinstance(current, tuple) else value


def _check_origin(content: Mapping[str, Any], optimizer: Optimizer) -> None:
    installed = version(DISTRIBUTION)
    if content["version"].split(".")[0] != installed.split(".")[0]:
        raise _incompatible(f"the saved state is of {DISTRIBUTION} {content['version']}, installed is {installed}")
    if content["optimizer"] != type(optimizer).__name__:
        raise _incompatible(f"the saved state is of {content['optimizer']}, the job has {type(optimizer).__name__}")


def _incompatible(message: str) -> LocexError:
    return LocexError(
        message,
        remedy="resume with the packages and the configuration that the training began with, or start it anew",
        code="state-incompatible",
    )
