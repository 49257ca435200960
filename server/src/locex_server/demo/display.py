"""What is shown while the demo runs, and at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass
class NodeView:
    """One node as its events tell it."""

    name: str
    classes: list[int]
    state: str = "-"
    rounds: dict[int, dict[str, Any]] = field(default_factory=dict)

    def take(self, kind: str, content: dict[str, Any]) -> None:
        """Take up one event."""
        if kind == "state":
            self.state = str(content["state"])
        elif kind == "round":
            self.rounds[int(content["round"])] = content

    @property
    def evaluation(self) -> dict[str, float]:
        """Loss and accuracy of the newest global model that this node evaluated."""
        evaluated = [content["evaluation"] for _, content in sorted(self.rounds.items()) if content.get("evaluation")]
        return evaluated[-1] if evaluated else {}


def shares(nodes: list[NodeView]) -> Table:
    """Return how many training images of each digit every node has."""
    table = Table(title="training images, shared out unevenly (Dirichlet; the split is ours)")
    for heading in ("node", *map(str, range(10)), "all"):
        table.add_column(heading, justify="left" if heading == "node" else "right")
    for node in nodes:
        table.add_row(node.name, *map(str, node.classes), str(sum(node.classes)))
    return table


def progress(nodes: list[NodeView], rounds: int) -> Table:
    """Return the live picture of all nodes."""
    table = Table(title=f"federated training, {rounds} rounds")
    for heading in ("node", "state", "round", "train loss", "global loss", "accuracy"):
        table.add_column(heading, justify="left" if heading in {"node", "state"} else "right")
    for node in nodes:
        newest = node.rounds[max(node.rounds)] if node.rounds else {}
        table.add_row(
            node.name,
            node.state,
            f"{newest.get('round', 0)}/{rounds}",
            _number(newest.get("train", {}).get("loss")),
            _number(node.evaluation.get("loss")),
            _number(node.evaluation.get("accuracy")),
        )
    return table


def summary(nodes: list[NodeView], accuracy: float, model: str, seconds: float) -> Table:
    """Return the final table."""
    table = Table(title="result", show_header=False)
    table.add_row("global accuracy (all test images of both nodes)", f"[bold]{accuracy:.4f}[/bold]")
    for node in nodes:
        table.add_row(f"accuracy on the test images of {node.name}", _number(node.evaluation.get("accuracy")))
    table.add_row("the trained model", model)
    table.add_row("time of the training", f"{seconds:.1f} s")
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
