"""What the rounds ask of a wire to the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from locex.api import Contribution, Evaluation, Scalar

if TYPE_CHECKING:
    from locex.api import Array

ResultT = TypeVar("ResultT")


@dataclass(slots=True)
class Replies(Generic[ResultT]):
    """What the asked nodes answered: results by node, and the reason of every failure by node."""

    results: dict[str, ResultT] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class NodeFailed(Exception):
    """A node died, refused or did not answer in time."""


class Wire(Protocol):
    """A server that nodes are connected to. Waits raise `locex.api.Stopped` when the training is to stop.

    ``names`` are the names of the tensors where they are known; a wire that carries no names ignores them.
    """

    carries_names: bool
    """Whether tensors travel by name; else only their order tells which is which."""

    def nodes(self) -> list[str]:
        """Return the ids of the nodes that are connected."""

    def parameters(self, node: str, timeout: float) -> tuple[list[str], list[Array]]:
        """Return a node's own parameters with their names (none where the wire carries none) or raise `NodeFailed`."""

    def fit(
        self,
        nodes: Sequence[str],
        names: Sequence[str],
        parameters: Sequence[Array],
        config: Mapping[str, Scalar],
        timeout: float,
    ) -> Replies[Contribution]:
        """Let nodes train, all at once."""

    def evaluate(
        self,
        nodes: Sequence[str],
        names: Sequence[str],
        parameters: Sequence[Array],
        config: Mapping[str, Scalar],
        timeout: float,
    ) -> Replies[Evaluation]:
        """Let nodes evaluate, all at once."""

    def close(self) -> None:
        """Tell the nodes that the training is over, as far as the wire can, and stop serving."""
