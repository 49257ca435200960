"""How a round's noise is shared between the update and the norm bits (Andrew et al. 2021, theorem 1)."""

from __future__ import annotations

import math


def update_multiplier(noise_multiplier: float, count_stddev: float) -> float:
    """Return z_Δ = (z⁻² − (2σ_b)⁻²)^(−½), with which update and count together are one Gaussian mechanism of z.

    The count of norm bits, each less ½, has sensitivity ½; with noise of standard deviation σ_b its multiplier is
    2σ_b. Multipliers compose as Σ zᵢ⁻². Raise `ValueError` where the count alone spends all: 2σ_b ≤ z leaves no real
    z_Δ.
    """
    spent = noise_multiplier / (2 * count_stddev)
    left = 1 - spent * spent
    if not left > 0:
        raise ValueError(
            f"noise of the clip count with standard deviation {count_stddev:g} leaves nothing for the update: "
            f"clip_count_stddev must be more than half of noise_multiplier={noise_multiplier:g} "
            f"(without it, it is num_sampled_clients / 20 under server-side noise)"
        )
    return noise_multiplier / math.sqrt(left)


def flip_probability(bit_stddev: float) -> float:
    """Return the probability that noise N(0, σ_b²) on a bit less ½ moves it past 0: Φ(−1 / 2σ_b)."""
    return 0.5 * math.erfc(1 / (2 * bit_stddev) / math.sqrt(2))
