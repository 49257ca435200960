"""The node's half of ``dp-fixed`` and ``dp-adaptive``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from locex.api import Array, Parameters, PrivacyContext, Scalar, Stage, Update
from locex.errors import PrivacyRefused
from locex_privacy.accountant import gaussian_event
from locex_privacy.budget import Budget
from locex_privacy.client_level.clipping import clip_factor, difference, is_float, norm_of
from locex_privacy.client_level.instruction import CLIP_NORM, NORM_BIT, Instruction, read_instruction
from locex_privacy.client_level.ledgers import with_events_of
from locex_privacy.mechanism import Mechanism
from locex_privacy.noise import system_normal

CLIENT = "client"
IF_HONEST = "client (if the server is honest)"
"""The unit under server-side noise: nobody at the node can see whether the noise was added."""


@dataclass(frozen=True, slots=True)
class NodeRules:
    """What a node holds to, whatever the server says.

    ``noise_multiplier`` (z) is that of a round as a whole, which is charged; ``update_multiplier`` (z_Δ ≥ z) is that
    of the update alone, where a norm bit with noise of ``bit_stddev`` is told beside it.
    """

    mechanism: str
    clip_norm: float
    max_clip_norm: float
    noise_multiplier: float
    update_multiplier: float
    bit_stddev: float | None
    server_side_noising: bool
    weight_cap: int | None
    delta: float
    max_epsilon: float | None


def trust_of(rules: NodeRules) -> list[str]:
    """Return what a job's record has to say about whom the node trusts."""
    if not rules.server_side_noising:
        return []
    return [f"{rules.mechanism}: the server adds the noise, so that ε holds only if the server is honest"]


@dataclass(frozen=True, slots=True)
class _Charged:
    """A round that was paid for: its clipping norm, and the norm that the bit is to be told of, if it is wanted.

    The bit is of the norm that the server named, however much of it the node follows: a server whose norm never
    seemed to be reached would raise it, and its noise, without end.
    """

    clip_norm: float
    bit_of: float | None


class ClientLevelMechanism(Mechanism):
    """Gaussian mechanism on the node's update (McMahan et al. 2018, Geyer et al. 2017, Andrew et al. 2021).

    The update is the difference of the new weights to the round's global weights. It is clipped to L2 norm C; under
    client-side noise every coordinate gets N(0, (z_Δ·C)²). Neighbouring inputs are *the node's contribution* and
    *none* (a zero update, and a fair coin for its bit): sensitivity C, and ½ of the bit. Client-side noise is the
    node's own, so that ε holds against the server too, and for each node by itself. Between two different data sets of
    one node the sensitivity is 2C, hence ε that of z/2. The server may name C, up to a bound of the node's; since noise
    is a multiple of C, ε does not depend on it.
    """

    stage = Stage.NOISE
    withholds_metrics = True

    def __init__(
        self, rules: NodeRules, context: PrivacyContext, normal: Callable[[int], Array] = system_normal
    ) -> None:
        """Take ``normal``, which returns that many standard normal values, from tests only."""
        self._rules = rules
        unit = IF_HONEST if rules.server_side_noising else CLIENT
        if rules.server_side_noising:  # who trusts the server with this round has spent what was noised at the node too
            context = with_events_of(context, IF_HONEST, CLIENT)
        self._budget = Budget(context, unit, rules.delta, rules.max_epsilon)
        self._normal = normal
        self._charged: _Charged | None = None

    def before_fit(self, config: Mapping[str, Scalar]) -> None:
        """Charge the coming round; raise `PrivacyRefused` where the server does not do its half or ε would pass."""
        self._charged = None
        instruction = read_instruction(config)
        if self._rules.server_side_noising:
            self._require_noise_of(instruction)
        named = instruction.clip_norm or self._rules.clip_norm
        wanted = instruction.adaptive and self._rules.bit_stddev is not None
        self._budget.charge(gaussian_event(self._rules.noise_multiplier))
        self._charged = _Charged(min(named, self._rules.max_clip_norm), named if wanted else None)

    def outgoing(
        self,
        update: Update,
        config: Mapping[str, Scalar],  # noqa: ARG002 -- the Protocol's
    ) -> Update:
        """Return reference + clipped difference + noise, as one example and without metrics but the norm bit.

        Tensors that are not floats go back as they came. Raise `PrivacyRefused` for a difference that is not finite,
        and for a second update on one charge.
        """
        if self._charged is None:
            raise PrivacyRefused(
                f"{self._rules.mechanism} was asked for an update of a round that was not charged",
                remedy="this is a fault in the program that drives the mechanism; report it",
            )
        charged, self._charged = self._charged, None
        norm = norm_of((tensor, update.reference[name]) for name, tensor in update.parameters.items())
        if not math.isfinite(norm):
            raise PrivacyRefused(
                "the update is not finite and cannot be clipped; nothing was sent, the round stays charged",
                remedy="lower the learning rate",
            )
        scale = clip_factor(norm, charged.clip_norm) * self._weight(update.examples)
        metrics: dict[str, Scalar] = {}
        if charged.bit_of is not None:
            metrics[NORM_BIT] = self._bit(norm <= charged.bit_of)
        return Update(self._released(update, scale, charged.clip_norm), update.reference, examples=1, metrics=metrics)

    def _require_noise_of(self, instruction: Instruction) -> None:
        rules = self._rules
        if instruction.nodes_noise:
            raise PrivacyRefused(
                f"{rules.mechanism} counts on noise of the server, which leaves the noise to its nodes",
                remedy="set server_side_noising alike at both",
            )
        if instruction.clip_norm is None:
            raise PrivacyRefused(
                f"{rules.mechanism} counts on noise of the server, which sends no {CLIP_NORM} and so seems to add none",
                remedy="give the server the strategy of the same name, or set server_side_noising to false",
            )
        told = instruction.noise_multiplier
        if told is not None and told < rules.noise_multiplier * (1 - 1e-9):
            raise PrivacyRefused(
                f"the server adds noise with the multiplier {told:g}, {rules.mechanism} counts on "
                f"{rules.noise_multiplier:g}",
                remedy="set noise_multiplier alike at both",
            )

    def _weight(self, examples: int) -> float:
        cap = self._rules.weight_cap
        return 1.0 if cap is None else min(examples, cap) / cap

    def _bit(self, unclipped: bool) -> bool:
        """Return the norm bit; under client-side noise, a threshold on bit − ½ + N(0, bit_stddev²)."""
        if self._rules.server_side_noising or self._rules.bit_stddev is None:
            return unclipped
        return bool((0.5 if unclipped else -0.5) + self._rules.bit_stddev * float(self._normal(1)[0]) > 0)

    def _released(self, update: Update, scale: float, clip_norm: float) -> Parameters:
        stddev = 0.0 if self._rules.server_side_noising else self._rules.update_multiplier * clip_norm
        return {
            name: self._protected(tensor, update.reference[name], scale, stddev)
            for name, tensor in update.parameters.items()
        }

    def _protected(self, tensor: Array, reference: Array, scale: float, stddev: float) -> Array:
        if not is_float(tensor):
            return reference.copy()
        moved = scale * difference(tensor, reference)
        if stddev:
            moved += self._normal(tensor.size).reshape(tensor.shape) * stddev
        # Last: rounded beside a reference that the server chose, an update without noise could pass the clipping norm.
        return (reference + moved).astype(tensor.dtype)
