"""The collector's half of ``dp-fixed``: every node counts the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from locex.api import Aggregation, Array, Contribution, Scalar
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class DpFixedAggregationConfig(PluginConfig):
    """Nothing to configure."""


class UnweightedMean:
    """The mean of the nodes' parameters: no node's weight, hence its influence, depends on its data."""

    plain_mean = True

    def configure(self, server_round: int) -> dict[str, Scalar]:  # noqa: ARG002 -- the Protocol's
        """Return nothing: nodes clip and noise by their own configuration."""
        return {}

    def aggregate(
        self,
        server_round: int,  # noqa: ARG002 -- the Protocol's
        current: list[Array],
        contributions: Sequence[Contribution],
    ) -> list[Array]:
        """Return the mean of every float tensor, summed in float64; other tensors stay as they are."""
        return [
            _mean([contribution.parameters[position] for contribution in contributions], tensor.dtype)
            if np.issubdtype(tensor.dtype, np.floating)
            else tensor
            for position, tensor in enumerate(current)
        ]

    def state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""


def _mean(tensors: list[Array], dtype: np.dtype[Any]) -> Array:
    total = np.zeros(tensors[0].shape)
    for tensor in tensors:
        total += tensor
    total /= len(tensors)
    return total.astype(dtype)


class DpFixedAggregation:
    """Unweighted mean: the collector's half of ``dp-fixed``."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `DpFixedAggregationConfig`."""
        return DpFixedAggregationConfig

    @hookimpl
    def locex_create_aggregation(self) -> Aggregation:
        """Return the aggregation."""
        return UnweightedMean()
