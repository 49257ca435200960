"""The collector's half of ``secagg``: which parameters SecAgg+ runs with. `training.secagg` runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from locex.api import Contribution, ContributionDecoder, Stage
from locex.errors import InvalidConfiguration
from locex.hookspecs import hookimpl
from locex.keystream import LARGEST
from locex.schemas.plugin import PluginConfig
from locex_controller.training.spec import TrainingSpec

if TYPE_CHECKING:
    from locex.api import Array

SUPERLINK = "flower-superlink"
FEWEST = 2
"""Nodes of a sum; each of two knows the other's part, the collector does not."""
_SENSELESS = {
    "compression": "compressed updates are not numbers that add up",
    "dp-adaptive": "its clipping norm follows what each node tells of its own update",
}


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

    @property
    def most(self) -> int:
        """The most nodes whose sum cannot wrap."""
        return self.modulus_range // self.quantization_range


class SecAgg:
    """Secure aggregation: the average of all nodes is all that the collector learns of their weights."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the model of the configuration."""
        return SecAggConfig

    @hookimpl
    def locex_create_aggregation(self, config: SecAggConfig) -> ContributionDecoder:
        """Return what tells the training to open the wire of secure sums."""
        return SecureSums(config)


class SecureSums:
    """Marks a training whose wire unmasks: what it hands over for each node is the average of all already."""

    stage = Stage.ENCRYPT

    def __init__(self, config: SecAggConfig) -> None:
        """Keep what the wire is opened with."""
        self.config = config

    def decode(self, contribution: Contribution, current: list[Array]) -> Contribution:  # noqa: ARG002
        """Return what the wire unmasked."""
        return contribution


def secure_sum(spec: TrainingSpec, decoders: Sequence[ContributionDecoder]) -> SecAggConfig | None:
    """Return the parameters of a training with secagg, None for others.

    Raise `InvalidConfiguration` where the wire, another mechanism or the plan makes no sense with it.
    """
    config = next((one.config for one in decoders if isinstance(one, SecureSums)), None)
    if config is None:
        return None
    if spec.federation != SUPERLINK:
        raise _refused(
            f"secagg needs four exchanges between server and nodes in each round, {spec.federation} has one",
            f"set the federation of the training, and of the nodes' jobs, to {SUPERLINK}",
            "/federation",
        )
    for other in spec.mechanisms:
        if other.name in _SENSELESS:
            raise _refused(f"{other.name} beside secagg: {_SENSELESS[other.name]}", "leave out one", other.pointer)
        if other.config.get("server_side_noising"):
            raise _refused(
                f"with secagg the collector does not see the single updates that {other.name}'s noise here is for",
                "set server_side_noising to false, so that each node adds its noise",
                f"{other.pointer}/server_side_noising",
            )
    threshold = config.reconstruction_threshold
    fewest = max(FEWEST, threshold if isinstance(threshold, int) else 0)
    if spec.plan.min_fit_clients < fewest:
        raise _refused(
            f"min_fit_clients is {spec.plan.min_fit_clients}, a secure sum needs {fewest} nodes",
            "raise min_fit_clients; the more nodes, the less a sum tells of one of them",
            "/strategy_conf/min_fit_clients",
        )
    if spec.plan.needed() > config.most:
        raise _refused(
            f"a round of {spec.plan.needed()} nodes is more than secagg can sum: modulus_range / quantization_range is "
            f"{config.most}",
            "lower quantization_range, or the number of nodes",
            "/privacy-mechanisms/secagg/quantization_range",
        )
    return config


def _refused(message: str, remedy: str, path: str) -> InvalidConfiguration:
    return InvalidConfiguration(message, remedy=remedy, errors=[{"path": path, "message": message}])
