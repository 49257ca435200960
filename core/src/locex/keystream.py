"""Uniform integers that two sides draw alike from a secret, for masks that cancel in a sum."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

LARGEST = 2**32


def uniform_integers(seed: bytes, modulus: int, shapes: Sequence[tuple[int, ...]]) -> list[npt.NDArray[Any]]:
    """Return int64 arrays of these shapes, uniform in [0, modulus), without bias.

    The stream is SHAKE-256 of the seed (FIPS 202): as hard to foretell as the whole seed is, not as a shorter state.
    A seed must serve once. ``modulus`` is a power of two, at most 2³².
    """
    if not 0 < modulus <= LARGEST or modulus & (modulus - 1):
        raise ValueError(f"the modulus {modulus} is no power of two up to 2^32")
    sizes = [math.prod(shape) for shape in shapes]
    stream = np.frombuffer(hashlib.shake_256(seed).digest(4 * sum(sizes)), dtype="<u4")
    values = (stream & np.uint32(modulus - 1)).astype(np.int64)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
