"""The collector's half of ``secagg``: which parameters SecAgg+ runs with. `training.secagg` runs it."""

from __future__ import annotations

from pydantic import Field, model_validator

from locex.api import Aggregation
from locex.hookspecs import hookimpl
from locex.keystream import LARGEST
from locex.schemas.plugin import PluginConfig
from locex_controller.fedavg import WeightedAverage


class SecAggConfig(PluginConfig):
    """Parameters of SecAgg+ by Flower's names; the nodes' jobs say the same."""

    num_shares: int | float = Field(
        default=1.0,
        gt=0,
        description="Shares of each node's secrets: a share of the round's nodes, or an odd number of 3 or more (1 is "
        "all).",
    )
    reconstruction_threshold: int | float = Field(
        default=2 / 3,
        gt=0,
        description="Shares that reveal a secret: a share of num_shares, or a number; at least 2. So many nodes must "
        "stay until the end of a round.",
    )
    clipping_range: float = Field(
        default=8.0, gt=0, description="The largest magnitude of a weight times its node's share of max_weight."
    )
    quantization_range: int = Field(
        default=2**22, ge=2, lt=2**31, description="Steps into which [-clipping_range, clipping_range] is divided."
    )
    modulus_range: int = Field(
        default=LARGEST,
        le=LARGEST,
        description="Masks are drawn from [0, modulus_range); a power of two. A round takes at most modulus_range / "
        "quantization_range nodes.",
    )
    max_weight: float = Field(default=1000.0, gt=0, description="The most examples of a node.")
    timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds that nodes have in each of the four stages, training included; else the training's "
        "round_timeout.",
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


class SecAgg:
    """Secure aggregation: the average of all nodes is all that the collector learns of their weights."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the model of the configuration."""
        return SecAggConfig

    @hookimpl
    def locex_create_aggregation(self, config: SecAggConfig) -> Aggregation:
        """Return the average, with the parameters for the wire."""
        return SecureAverage(config)


class SecureAverage(WeightedAverage):
    """What the wire hands over for each node is the secure average already; the average of those is the same."""

    def __init__(self, config: SecAggConfig) -> None:
        """Keep what the wire is opened with."""
        self.config = config
