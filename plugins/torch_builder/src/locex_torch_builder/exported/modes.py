"""Training and evaluation of an exported graph, whose modes are constants among its operations' arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

_EVALUATED: dict[str, Any] = {"train": False, "training": False, "use_input_stats": False, "dropout_p": 0.0}
"""Arguments of aten by name with their value in evaluation (dropout, norms, rrelu, lstm, attention, …)."""
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class _Switch:
    """An argument of a node that says the mode, or the number by which a counter of batches grows."""

    node: fx.Node
    position: int
    exported: Any
    evaluated: Any


class Modes:
    """Switches a graph between what it was exported with and evaluation."""

    def __init__(self, module: nn.Module) -> None:
        """Find what depends on the mode in a module that ``ExportedProgram.module()`` made."""
        assert isinstance(module, fx.GraphModule)
        self._module = module
        self._switches = [switch for node in module.graph.nodes for switch in _switches(node)]
        self._training = True

    @property
    def frozen(self) -> bool:
        """Whether there is something to switch, and all of it was exported for evaluation."""
        return bool(self._switches) and all(switch.exported == switch.evaluated for switch in self._switches)

    def switch(self, *, training: bool) -> None:
        """Let the module compute as in the given mode."""
        if training == self._training:
            return
        self._training = training
        for switch in self._switches:
            switch.node.update_arg(switch.position, switch.exported if training else switch.evaluated)
        if self._switches:
            self._module.recompile()


def _switches(node: fx.Node) -> list[_Switch]:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001 -- its only name
        return []
    arguments = dict(zip((one.name for one in node.target._schema.arguments), node.args, strict=False))  # noqa: SLF001 -- there is no public schema
    if "momentum" in arguments and arguments.get("running_mean") is None:
        return []  # a normalization without averages, which uses the batch's in evaluation too
    found = [
        _Switch(node, position, exported, _EVALUATED[name])
        for position, (name, exported) in enumerate(arguments.items())
        if name in _EVALUATED
    ]
    first = node.args[0] if node.args else None
    counts = isinstance(first, fx.Node) and str(first.target).endswith(_COUNTER)
    if counts and node.target.overloadpacket in {torch.ops.aten.add, torch.ops.aten.add_} and len(node.args) > 1:
        found.append(_Switch(node, 1, node.args[1], 0))
    return found
