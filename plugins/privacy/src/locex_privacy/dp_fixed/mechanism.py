"""The node's half of ``dp-fixed``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import AliasChoices, Field

from locex.api import Array, Incoming, PrivacyContext, PrivacyMechanism, Scalar, Stage, TrainingSession, Update
from locex.errors import PrivacyRefused
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_privacy.accountant import gaussian_event
from locex_privacy.budget import Budget
from locex_privacy.noise import system_normal

UNIT = "client"


class DpFixedConfig(PluginConfig):
    """Clipping norm, noise and budget."""

    clip_norm: float = Field(
        gt=0,
        validation_alias=AliasChoices("clip_norm", "init_clip_norm"),
        description="C: the L2 norm to which the update, all float tensors together, is clipped.",
    )
    noise_multiplier: float = Field(
        ge=1e-3,
        description="z: the noise's standard deviation is z · C; no less than 0.001, where ε is 500,000 a round.",
    )
    delta: float = Field(default=1e-5, gt=0, lt=1, description="δ, at which ε is reported and bounded.")
    max_epsilon: float | None = Field(
        default=None, gt=0, description="The round that would raise the data set's ε past this is refused."
    )


class DpFixedMechanism:
    """Gaussian mechanism on the node's update (McMahan et al. 2018, Geyer et al. 2017), noised before it leaves.

    The update is the difference of the new weights to the round's global weights. It is clipped to L2 norm C and
    every coordinate gets noise N(0, (z·C)²). Neighbouring inputs are *the node's contribution* and *none* (a zero
    update): sensitivity C. The noise is the node's own, so that the guarantee holds against the server too, and for
    each node by itself. Between two different data sets of the same node the sensitivity is 2C, hence ε that of z/2.
    """

    stage = Stage.NOISE
    withholds_metrics = True

    def __init__(
        self, config: DpFixedConfig, context: PrivacyContext, normal: Callable[[int], Array] = system_normal
    ) -> None:
        """Take ``normal``, which returns that many standard normal values, from tests only."""
        self._clip_norm = config.clip_norm
        self._noise_multiplier = config.noise_multiplier
        self._budget = Budget(context, UNIT, config.delta, config.max_epsilon)
        self._normal = normal
        self._charged = False

    def requires(self, federation: str) -> None:
        """Accept every federation: what is sent are plain weights."""

    def prepare(self, session: TrainingSession) -> None:
        """Leave the session as it is."""

    def before_fit(self, config: Mapping[str, Scalar]) -> None:  # noqa: ARG002 -- the Protocol's
        """Charge the coming round; raise `PrivacyRefused` where it would pass the budget."""
        self._charged = False
        self._budget.charge(gaussian_event(self._noise_multiplier))
        self._charged = True

    def incoming(
        self,
        parameters: Incoming,
        config: Mapping[str, Scalar],  # noqa: ARG002 -- the Protocol's
    ) -> Incoming:
        """Return what arrived."""
        return parameters

    def outgoing(
        self,
        update: Update,
        config: Mapping[str, Scalar],  # noqa: ARG002 -- the Protocol's
    ) -> Update:
        """Return reference + clipped difference + noise, as one example and without metrics.

        Tensors that are not floats go back as they came. Raise `PrivacyRefused` for a difference that is not finite,
        and for a second update on one charge.
        """
        if not self._charged:
            raise PrivacyRefused(
                "dp-fixed was asked for an update of a round that was not charged",
                remedy="this is a fault in the program that drives the mechanism; report it",
            )
        self._charged = False
        scale = self._scale(update)
        parameters = {
            name: self._protected(tensor, update.reference[name], scale) for name, tensor in update.parameters.items()
        }
        return Update(parameters, update.reference, examples=1, metrics={})

    def state(self) -> dict[str, Any]:
        """Return nothing: what must last is in the ledger."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""

    def _scale(self, update: Update) -> float:
        squares = 0.0
        for name, tensor in update.parameters.items():
            if _is_float(tensor):
                flat = _difference(tensor, update.reference[name]).ravel()
                squares += float(flat @ flat)
        if not np.isfinite(squares):
            raise PrivacyRefused(
                "the update is not finite and cannot be clipped; nothing was sent, the round stays charged",
                remedy="lower the learning rate",
            )
        norm = squares**0.5
        return min(1.0, self._clip_norm / norm) if norm else 1.0

    def _protected(self, tensor: Array, reference: Array, scale: float) -> Array:
        if not _is_float(tensor):
            return reference.copy()
        noise = self._normal(tensor.size).reshape(tensor.shape) * (self._noise_multiplier * self._clip_norm)
        return (reference + scale * _difference(tensor, reference) + noise).astype(tensor.dtype)


def _is_float(tensor: Array) -> bool:
    return bool(np.issubdtype(tensor.dtype, np.floating))


def _difference(tensor: Array, reference: Array) -> Array:
    return tensor.astype(np.float64) - reference


class DpFixed:
    """Client-level differential privacy: fixed clipping, noise on the node (``dp-fixed``)."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `DpFixedConfig`."""
        return DpFixedConfig

    @hookimpl
    def locex_create_privacy(self, config: DpFixedConfig, context: PrivacyContext) -> PrivacyMechanism:
        """Return the mechanism, noised by the operating system's entropy."""
        return DpFixedMechanism(config, context)
