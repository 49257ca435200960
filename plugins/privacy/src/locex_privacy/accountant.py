"""How much privacy a ledger's events have spent. The one module that knows dp-accounting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from locex.errors import PrivacyRefused

GAUSSIAN = "gaussian"


def gaussian_event(noise_multiplier: float) -> dict[str, Any]:
    """Return the event of one Gaussian mechanism with σ = noise_multiplier · sensitivity, for a ledger."""
    return {"mechanism": GAUSSIAN, "noise_multiplier": noise_multiplier}


def epsilon(events: Sequence[Mapping[str, Any]], delta: float) -> float:
    """Return the ε, at ``delta``, of all Gaussian events together, each chosen with knowledge of those before.

    Gaussian mechanisms compose exactly to one whose multiplier z has z⁻² = Σ zᵢ⁻² (Dong, Roth, Su 2022, corollary
    3.3); its ε is the analytic one of Balle and Wang (2018), so nothing is lost to a bound or a grid. Raise
    `PrivacyRefused` for an event of any other mechanism: it is never left out.
    """
    if not events:
        return 0.0
    from dp_accounting import get_epsilon_gaussian

    multiplier = math.hypot(*(1 / _multiplier(event) for event in events)) ** -1
    with np.errstate(divide="ignore"):  # so much noise that δ(ε) rounds to 0
        return float(get_epsilon_gaussian(multiplier, delta))


def _multiplier(event: Mapping[str, Any]) -> float:
    multiplier = event.get("noise_multiplier")
    if (
        event.get("mechanism") == GAUSSIAN
        and set(event) == {"mechanism", "noise_multiplier"}
        and isinstance(multiplier, int | float)
        and math.isfinite(multiplier)
        and multiplier > 0
    ):
        return float(multiplier)
    raise PrivacyRefused(
        f"the privacy ledger holds an event that cannot be accounted for: {dict(event)}",
        remedy="use the mechanism that charged it, or name another data set in LOCEX_DATASET if it is another",
    )
