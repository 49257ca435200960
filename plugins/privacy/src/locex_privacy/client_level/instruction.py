"""What a server tells its nodes about client-level differential privacy, and what they answer.

The keys are those of Flower's ``DPFedAvgFixed`` and ``DPFedAvgAdaptive``, so that these drive our nodes, and Flower's
``DPFedAvgNumPyClient`` works with our collector; ``clipping_norm`` is that of Flower's newer ``…ClientSideClipping``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from locex.api import Scalar
from locex.errors import PrivacyRefused

CLIP_NORM = "dpfedavg_clip_norm"
CLIP_NORM_OF_MODS = "clipping_norm"
NOISE_STDDEV = "dpfedavg_noise_stddev"
"""Sent by servers that leave the noise to their nodes: its standard deviation."""
ADAPTIVE = "dpfedavg_adaptive_clip_enabled"
NORM_BIT = "dpfedavg_norm_bit"
"""A node's answer: whether its update was no longer than the clipping norm."""
LEAST_NORM = 1e-100
"""The smallest clipping norm that is followed: times a multiplier, far smaller ones are 0 in floating point."""
NOISE_MULTIPLIER = "dpfedavg_noise_multiplier"
"""Sent by our collector where it adds the noise, and by no other: nodes refuse less than they count on."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """A round's clipping norm, whether the norm bit is asked for, and who adds noise; None where nothing was said."""

    clip_norm: float | None
    adaptive: bool
    nodes_noise: bool
    noise_multiplier: float | None


def read_instruction(config: Mapping[str, Scalar]) -> Instruction:
    """Return what the fit configuration says; raise `PrivacyRefused` for a norm or multiplier that is none."""
    key = CLIP_NORM if CLIP_NORM in config else CLIP_NORM_OF_MODS
    return Instruction(
        clip_norm=_positive(config, key, least=LEAST_NORM),
        adaptive=config.get(ADAPTIVE) is True or config.get(ADAPTIVE) == 1,
        nodes_noise=NOISE_STDDEV in config,
        noise_multiplier=_positive(config, NOISE_MULTIPLIER),
    )


def _positive(config: Mapping[str, Scalar], key: str, *, least: float = 0.0) -> float | None:
    value = config.get(key)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (math.isfinite(value) and value > 0 and value >= least)
    ):
        raise PrivacyRefused(
            f"the server sent {key}={value!r}, which is no positive number" + (f" from {least:g} on" if least else ""),
            remedy="correct the server's strategy; nothing was charged",
        )
    return float(value)
