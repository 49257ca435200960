"""Gaussian noise and random choices from the operating system's entropy."""

from __future__ import annotations

import os

import numpy as np

from locex.api import Array

CHUNK = 1 << 18  # pairs at a time: bounds the memory that noise takes beside its result


def system_normal(size: int) -> Array:
    """Return ``size`` standard normal float64 values made of the operating system's random bytes.

    Box and Muller (1958) on uniforms of 53 bits: no seed and no state exists that could be guessed, posted or
    restored. The largest value that can occur is 8.6; a true normal is larger with probability 10⁻¹⁷. As every
    sampler of floating-point numbers it has gaps (Mironov 2012), which the README weighs.
    """
    noise = np.empty(size)
    for start in range(0, size, 2 * CHUNK):
        part = noise[start : start + 2 * CHUNK]
        pairs = (len(part) + 1) // 2
        radius = np.sqrt(-2 * np.log(_uniform(pairs)))
        angle = 2 * np.pi * _uniform(pairs)
        part[:pairs] = radius * np.cos(angle)
        part[pairs:] = (radius * np.sin(angle))[: len(part) - pairs]
    return noise


def system_choice(size: int, rate: float) -> Array:
    """Return the indices below ``size``, in order, of which each is chosen for itself with probability ``rate``.

    Poisson sampling by the operating system's random bytes: 53 of them decide about each index, and the probability is
    ``rate`` up to 2⁻⁵⁴.
    """
    chosen: Array = np.flatnonzero(_uniform(size) < rate)
    return chosen


def _uniform(size: int) -> Array:
    """Return uniforms in (0, 1): midpoints of 2⁵³ equal intervals, so that 0 never occurs."""
    bits = np.frombuffer(os.urandom(8 * size), np.uint64) >> np.uint64(11)
    return (bits + 0.5) * 2.0**-53
