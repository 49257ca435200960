"""Fields that ``dp-fixed`` and ``dp-adaptive`` have in common."""

from __future__ import annotations

from pydantic import Field

from locex.schemas.plugin import PluginConfig


class SharedFields(PluginConfig):
    """What both halves, the node's and the collector's, may be given."""

    num_sampled_clients: int | None = Field(
        default=None,
        gt=0,
        description="Nodes expected in a round. Server-side noise follows the number that really contributed.",
    )


class NodeFields(SharedFields):
    """What only the node's half has."""

    weight_cap: int | None = Field(
        default=None,
        gt=0,
        description="Examples from which on a node has full weight; its clipped update is multiplied by "
        "min(examples, weight_cap) / weight_cap before noise. Without it every node counts the same.",
    )
    delta: float = Field(default=1e-5, gt=0, lt=1, description="δ, at which ε is reported and bounded.")
    max_epsilon: float | None = Field(
        default=None, gt=0, description="The round that would raise the data set's ε past this is refused."
    )
