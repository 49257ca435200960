"""The collector's half of ``dp-adaptive``: the clipping norm follows the quantile of the nodes' norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from locex.api import Aggregation, Array, Contribution, Scalar
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_privacy.client_level.aggregation import NoisyMean, UnweightedMean
from locex_privacy.client_level.instruction import ADAPTIVE, CLIP_NORM, NOISE_STDDEV, NORM_BIT
from locex_privacy.dp_adaptive.config import DpAdaptiveAggregationConfig
from locex_privacy.dp_adaptive.split import flip_probability
from locex_privacy.noise import system_normal


class AdaptiveMean:
    """Adaptive clipping (Andrew et al. 2021): C ← C · exp(−η (b − γ)) with b, the noisy share of norms below C.

    Under server-side noise the collector adds N(0, σ_b²) to the count of the bits, and N(0, (z_Δ·C/m)²) to the mean.
    Under client-side noise both arrive noised; a bit is then flipped with probability q, and what has the share γ
    below it shows γ (1 − 2q) + q, which takes γ's place.
    """

    def __init__(self, config: DpAdaptiveAggregationConfig, normal: Callable[[int], Array] = system_normal) -> None:
        """Take ``normal``, which returns that many standard normal values, from tests only."""
        self._config = config
        self._normal = normal
        self._clip_norm = config.init_clip_norm

    def configure(self, server_round: int) -> dict[str, Scalar]:
        """Tell nodes the clipping norm of the round, that the norm bit is wanted, and who adds noise."""
        told = {CLIP_NORM: self._clip_norm, ADAPTIVE: True}
        if self._config.server_side_noising:
            return self._noisy_mean().configure(server_round) | told
        return {**told, NOISE_STDDEV: self._config.update_multiplier * self._clip_norm}

    def aggregate(self, server_round: int, current: list[Array], contributions: Sequence[Contribution]) -> list[Array]:
        """Return the mean, and move the clipping norm of the next round.

        The norm bits are taken out of the contributions' metrics: their average, told in a report, has no noise.
        """
        bits = [bool(one.metrics.pop(NORM_BIT)) for one in contributions if NORM_BIT in one.metrics]
        mean = self._noisy_mean() if self._config.server_side_noising else UnweightedMean()
        new = mean.aggregate(server_round, current, contributions)
        if bits:
            self._adapt(bits)
        return new

    def state(self) -> dict[str, Any]:
        """Return the clipping norm of the next round."""
        return {"clip_norm": self._clip_norm}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the clipping norm."""
        self._clip_norm = float(state["clip_norm"])

    def _noisy_mean(self) -> NoisyMean:
        config = self._config
        return NoisyMean(self._clip_norm, config.noise_multiplier, config.update_multiplier, self._normal)

    def _adapt(self, bits: Sequence[bool]) -> None:
        config, count, target = self._config, float(sum(bits)), self._config.clip_norm_target_quantile
        if config.server_side_noising:
            count += config.count_stddev * float(self._normal(1)[0])
        else:
            flipped = flip_probability(config.count_stddev)
            target = target * (1 - 2 * flipped) + flipped
        self._clip_norm *= math.exp(-config.clip_norm_lr * (count / len(bits) - target))


class DpAdaptiveAggregation:
    """Adaptive clipping, with noise where the collector adds it: the collector's half of ``dp-adaptive``."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `DpAdaptiveAggregationConfig`."""
        return DpAdaptiveAggregationConfig

    @hookimpl
    def locex_create_aggregation(self, config: DpAdaptiveAggregationConfig) -> Aggregation:
        """Return the aggregation, noised by the operating system's entropy."""
        return AdaptiveMean(config)
