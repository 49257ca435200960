"""Puts an exported graph on a device: its tensors, and the devices that it names, which are those of the export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate


def place(module: nn.Module, device: torch.device) -> None:
    """Move a module that ``ExportedProgram.module()`` made; ``module.to`` leaves constants where they were."""
    assert isinstance(module, fx.GraphModule)
    module.to(device)
    for part in module.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, Tensor):
                setattr(part, name, value.to(device))

    def placed(argument: Any) -> Any:
        return device if isinstance(argument, torch.device) else argument

    for node in module.graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, placed), map_aggregate(node.kwargs, placed)
    module.recompile()
