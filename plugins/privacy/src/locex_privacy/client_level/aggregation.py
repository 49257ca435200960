"""The collector's half of ``dp-fixed`` and ``dp-adaptive``: every node counts the same, and noise where it is due."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from locex.api import Array, Contribution, Scalar
from locex_privacy.client_level.clipping import clip_factor, difference, is_float, norm_of
from locex_privacy.client_level.instruction import CLIP_NORM, NOISE_MULTIPLIER
from locex_privacy.noise import system_normal


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
            _mean([one.parameters[position] for one in contributions]).astype(tensor.dtype)
            if is_float(tensor)
            else tensor
            for position, tensor in enumerate(current)
        ]

    def state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""


class NoisyMean(UnweightedMean):
    """The mean of clipped updates with noise N(0, (z_Δ·C/m)²) for the m nodes that contributed (server-side noise).

    Without one node, taken as a zero update among the m, the mean lies at most C/m away. So m is the number that
    really contributed, never the one that was hoped for: with fewer nodes the same z needs more noise on the mean.
    The collector clips again: a node that does not clip (one without the mechanism, or one that compresses with what
    it held back before) would otherwise pass the sensitivity of all.
    """

    plain_mean = False

    def __init__(
        self,
        clip_norm: float,
        noise_multiplier: float,
        update_multiplier: float,
        normal: Callable[[int], Array] = system_normal,
    ) -> None:
        """Take ``normal``, which returns that many standard normal values, from tests only."""
        self._clip_norm = clip_norm
        self._noise_multiplier = noise_multiplier
        self._update_multiplier = update_multiplier
        self._normal = normal

    def configure(self, server_round: int) -> dict[str, Scalar]:  # noqa: ARG002 -- the Protocol's
        """Tell nodes C and the multiplier that they may count on."""
        return {CLIP_NORM: self._clip_norm, NOISE_MULTIPLIER: self._noise_multiplier}

    def aggregate(
        self,
        server_round: int,  # noqa: ARG002 -- the Protocol's
        current: list[Array],
        contributions: Sequence[Contribution],
    ) -> list[Array]:
        """Return current + mean of clipped updates + noise, in float64; other tensors stay as they are."""
        factors = [self._factor(one.parameters, current) for one in contributions]
        return [
            self._moved(tensor, [one.parameters[position] for one in contributions], factors)
            if is_float(tensor)
            else tensor
            for position, tensor in enumerate(current)
        ]

    def _factor(self, parameters: Sequence[Array], current: Sequence[Array]) -> float:
        norm = norm_of(zip(parameters, current, strict=True))
        return clip_factor(norm, self._clip_norm) if math.isfinite(norm) else 0.0

    def _moved(self, known: Array, sent: Sequence[Array], factors: Sequence[float]) -> Array:
        total = self._normal(known.size).reshape(known.shape) * (self._update_multiplier * self._clip_norm)
        for tensor, factor in zip(sent, factors, strict=True):
            total += factor * difference(tensor, known)
        return known + total / len(sent)


def _mean(tensors: Sequence[Array]) -> Array:
    total = np.zeros(tensors[0].shape)
    for tensor in tensors:
        total += tensor
    total /= len(tensors)
    return total
