"""Differences of parameters and their norm: float tensors only, all together, in double precision."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from locex.api import Array


def is_float(tensor: Array) -> bool:
    """Tell whether a tensor takes part: integer buffers are neither clipped nor noised, they do not leave."""
    return bool(np.issubdtype(tensor.dtype, np.floating))


def difference(tensor: Array, reference: Array) -> Array:
    """Return tensor − reference in float64."""
    return tensor.astype(np.float64) - reference


def norm_of(pairs: Iterable[tuple[Array, Array]]) -> float:
    """Return the L2 norm of the differences of all float tensors to their references; it may be infinite or NaN."""
    squares = 0.0
    for tensor, reference in pairs:
        if is_float(tensor):
            flat = difference(tensor, reference).ravel()
            squares += float(flat @ flat)
    return math.sqrt(squares)


def clip_factor(norm: float, clip_norm: float) -> float:
    """Return the factor by which an update of this norm is scaled to be no longer than ``clip_norm``."""
    return min(1.0, clip_norm / norm) if norm else 1.0
