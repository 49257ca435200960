"""The privacy mechanism ``secagg``: the server learns the sum of all nodes' updates, and none of them alone.

The mechanism acts last, on what all others made of the update. It hands on nothing by itself: the update waits in it
until the federation's half (`locex_flower.secagg_node`) has masked it, so that no other way out carries weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from locex.api import Incoming, PrivacyContext, PrivacyMechanism, PrivacyReview, Scalar, Stage, TrainingSession, Update
from locex.errors import PrivacyRefused
from locex.hookspecs import hookimpl
from locex_flower.secagg_settings import SecAggConfig

if TYPE_CHECKING:
    from locex.api import Array

FEDERATION = "flower-superlink"
_SENSELESS = {
    "homomorphic": "both hide single updates, and what is encrypted cannot be summed under masks",
    "compression": "compressed updates are not tensors of numbers that add up",
    "dp-adaptive": "its clipping norm follows what each node tells of its own update",
}


class SecAgg:
    """Secure aggregation by Flower's SecAgg+ (Bell et al. 2020) over ``flower-superlink``."""

    @hookimpl
    def locex_config_model(self) -> type[SecAggConfig]:
        """Return what users may configure."""
        return SecAggConfig

    @hookimpl
    def locex_review_privacy(self, config: SecAggConfig, review: PrivacyReview) -> list[str]:
        """Refuse wires and mechanisms beside which secure aggregation makes no sense."""
        _require(review.federation)
        for name, other in review.mechanisms.items():
            if name in _SENSELESS:
                raise PrivacyRefused(f"secagg cannot be used with {name}: {_SENSELESS[name]}", remedy="leave out one")
            if getattr(other, "server_side_noising", False):
                raise PrivacyRefused(
                    f"secagg cannot be used with {name}'s noise at the server: the collector would have to clip and "
                    "noise single updates, which it does not see",
                    remedy="set server_side_noising to false, so that each node adds its noise",
                )
        return _warnings(config, review)

    @hookimpl
    def locex_create_privacy(self, config: SecAggConfig, context: PrivacyContext) -> PrivacyMechanism:  # noqa: ARG002
        """Return this node's half."""
        return SecureAggregation(config)


class SecureAggregation:
    """Keeps an update until it is masked."""

    stage = Stage.ENCRYPT
    withholds_metrics = False

    def __init__(self, config: SecAggConfig) -> None:
        """Keep nothing yet."""
        self.config = config
        self._kept: Update | None = None

    def requires(self, federation: str) -> None:
        """Raise `PrivacyRefused` for every wire but a SuperLink's."""
        _require(federation)

    def prepare(self, session: TrainingSession) -> None:
        """Leave the session as it is."""

    def before_fit(self, config: Mapping[str, Scalar]) -> None:  # noqa: ARG002 -- the Protocol's
        """Forget an update that was not fetched."""
        self._kept = None

    def incoming(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Incoming:  # noqa: ARG002
        """Return what arrived: global weights come in clear."""
        return parameters

    def outgoing(self, update: Update, config: Mapping[str, Scalar]) -> Update:  # noqa: ARG002 -- the Protocol's
        """Keep the tensors for the masking, return the update without them; raise `PrivacyRefused` for what would wrap.

        Flower would clip it, or let the sum overflow, without a word.
        """
        limit, heaviest = self.config.clipping_range, self.config.max_weight
        if update.examples > heaviest:
            raise PrivacyRefused(
                f"this node has {update.examples} examples, secagg's max_weight is {heaviest:g}",
                remedy="set max_weight, at the collector and in every job, to the largest node's number of examples",
            )
        share = update.examples / heaviest
        for name, tensor in update.parameters.items():
            largest = float(np.max(np.abs(tensor), initial=0.0)) * share
            if not largest <= limit:
                raise PrivacyRefused(
                    f"{name} reaches more than secagg's clipping_range of {limit:g} when weighted",
                    private=f"it reaches {largest:.3g}",
                    remedy="raise clipping_range, at the collector and in every job; rounding grows with it",
                )
        self._kept = update
        return replace(update, parameters={})

    def take(self) -> list[Array]:
        """Return the tensors of the last update in the model's order, once."""
        if self._kept is None:
            raise PrivacyRefused(
                "there is no update to mask",
                remedy="this is a fault in the program that drives the mechanism; report it",
            )
        kept, self._kept = self._kept, None
        return list(kept.parameters.values())

    def state(self) -> dict[str, Any]:
        """Return nothing: keys live for one round."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""


def _warnings(config: SecAggConfig, review: PrivacyReview) -> list[str]:
    warnings: list[str] = []
    if config.half_reveals():
        warnings.append(
            "half the shares of a secret may reveal it: a collector that tells one half of the nodes that this node is "
            "lost, and the other that it is not, sees its update; raise reconstruction_threshold of secagg above one "
            "half, here and at the collector"
        )
    if config.max_weight != 1 and any(name.startswith("dp-") for name in review.mechanisms):
        warnings.append(
            f"with differential privacy each node has the weight 1: max_weight {config.max_weight:g} of secagg "
            f"makes its rounding {config.max_weight:g} times as coarse; set it to 1, here and at the collector"
        )
    return warnings


def _require(federation: str) -> None:
    if federation != FEDERATION:
        raise PrivacyRefused(
            f"secagg needs four exchanges between server and nodes in each round, {federation} has one",
            remedy=f"set the job's federation, and the training's, to {FEDERATION}",
        )
