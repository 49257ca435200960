"""The aggregation ``fedavg``: the average of contributions, weighted by their examples (McMahan et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from locex.api import Aggregation, Contribution, Scalar
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig

if TYPE_CHECKING:
    from locex.api import Array


class FedAvgConfig(PluginConfig):
    """Federated averaging has nothing to configure."""


class FedAvg:
    """Federated averaging: the mean of contributions, weighted by their examples."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the model of the configuration."""
        return FedAvgConfig

    @hookimpl
    def locex_create_aggregation(self) -> Aggregation:
        """Return the average."""
        return WeightedAverage()


class WeightedAverage:
    """Averages in float64; contributions that all name no examples count alike."""

    def configure(self, server_round: int) -> dict[str, Scalar]:  # noqa: ARG002 -- the Protocol's signature
        """Nodes need not be told anything."""
        return {}

    def aggregate(
        self,
        server_round: int,  # noqa: ARG002 -- the Protocol's signature
        current: list[Array],
        contributions: Sequence[Contribution],
    ) -> list[Array]:
        """Return the average of every tensor, in float64."""
        total = sum(contribution.examples for contribution in contributions)
        shares = [contribution.examples / total if total else 1 / len(contributions) for contribution in contributions]
        return [
            _average([contribution.parameters[index] for contribution in contributions], shares)
            for index in range(len(current))
        ]

    def state(self) -> dict[str, Any]:
        """Averaging remembers nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""


def _average(tensors: Sequence[Array], shares: Sequence[float]) -> Array:
    average = np.zeros(tensors[0].shape, dtype=np.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        average += np.multiply(tensor, share, dtype=np.float64)
    return average
