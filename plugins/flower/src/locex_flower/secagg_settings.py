"""What a job says of ``secagg``: Flower's own parameters of SecAgg+, by Flower's names."""

from __future__ import annotations

from pydantic import Field, model_validator

from locex.keystream import LARGEST
from locex.schemas.plugin import PluginConfig


class SecAggConfig(PluginConfig):
    """Parameters of SecAgg+. Node and server must say the same; what Flower has defaults for has Flower's."""

    num_shares: int | float = Field(
        default=1.0,
        gt=0,
        description="Shares of each node's secrets: a share of the round's nodes, or an odd number of 3 or more (1 is "
        "all). A node masks its update against that many, itself included.",
    )
    reconstruction_threshold: int | float = Field(
        default=2 / 3,
        gt=0,
        description="Shares that reveal a secret: a share of num_shares, or a number; at least 2. So many nodes must "
        "stay until the end of a round, and so many could unmask a node together with the server.",
    )
    clipping_range: float = Field(
        default=8.0, gt=0, description="The largest magnitude of a weight times its node's share of max_weight."
    )
    quantization_range: int = Field(
        default=2**22, ge=2, lt=2**31, description="Steps into which [-clipping_range, clipping_range] is divided."
    )
    modulus_range: int = Field(
        default=LARGEST, le=LARGEST, description="Masks are drawn from [0, modulus_range); a power of two."
    )
    max_weight: float = Field(
        default=1000.0, gt=0, description="The most examples of a node; a node with more is refused."
    )
    timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds that the collector waits in each of the four stages; not used by nodes.",
    )
    flower_masks: bool = Field(
        default=False,
        description="Take part at servers that only know Flower's own masks, whose seeds have at most 32 bits: a "
        "server that searches them can see the node's update.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> SecAggConfig:
        shares, threshold = self.num_shares, self.reconstruction_threshold
        if isinstance(shares, int) and shares != 1 and (shares < 3 or shares % 2 == 0):  # noqa: PLR2004 -- Flower's
            raise ValueError("num_shares as a whole number is 1 (all nodes) or odd and at least 3")
        if isinstance(threshold, float) and threshold > 1:
            raise ValueError("reconstruction_threshold as a share is at most 1")
        if isinstance(shares, int) and isinstance(threshold, int) and threshold >= shares > 1:
            raise ValueError("reconstruction_threshold must be less than num_shares")
        if self.modulus_range & (self.modulus_range - 1):
            raise ValueError("modulus_range must be a power of two")
        if self.modulus_range < 2 * self.quantization_range:
            raise ValueError("modulus_range must be at least twice quantization_range, else sums wrap")
        return self

    def half_reveals(self) -> bool:
        """Return whether half of a secret's shares, or fewer, may reveal it; rounding may make more of a share."""
        shares, threshold = self.num_shares, self.reconstruction_threshold
        if isinstance(threshold, float):
            return threshold <= 0.5  # noqa: PLR2004 -- half
        return threshold > 1 and isinstance(shares, int) and 2 * threshold <= shares

    def shares_of(self, nodes: int) -> tuple[int, int]:
        """Return shares and threshold in a round of that many nodes, as `SecAggPlusWorkflow` computes them."""
        shares, threshold = self.num_shares, self.reconstruction_threshold
        if isinstance(shares, float) or shares == 1:
            count = round(shares * nodes)
            count += count < nodes and count % 2 == 0
            count = nodes if count <= 2 else count  # noqa: PLR2004 -- Flower's
        else:
            count = shares
        if isinstance(threshold, float) or threshold == 1:
            return count, max(round(threshold * count), 2)
        return count, threshold
