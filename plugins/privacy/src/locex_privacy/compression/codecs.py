"""The three ways to write a vector in fewer bytes. Each is told by the type of its first array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from locex.api import Array

BLOCK = 256  # coordinates under one scale: 4 bytes more in 256


class Codec(Protocol):
    """Writes float32 vectors of finite numbers as arrays, and reads them."""

    marker: np.dtype[np.generic]
    """The type of the first array."""
    arrays: int
    """How many arrays it writes."""

    def encode(self, vector: Array) -> list[Array]:
        """Return the arrays."""

    def decode(self, arrays: Sequence[Array], size: int) -> Array:
        """Return a float32 vector of this size; raise `ValueError` for arrays that `encode` did not make."""


class Int8:
    """Blockwise 8-bit integers: each block of 256 has one float32 scale, its largest magnitude / 127."""

    marker: np.dtype[np.generic] = np.dtype(np.int8)
    arrays = 2

    def encode(self, vector: Array) -> list[Array]:
        """Return the integers and the scales."""
        blocks = _blocks(vector)
        scales = (np.abs(blocks).max(axis=1, initial=0.0) / 127).astype(np.float32)
        divisors = np.where(scales > 0, scales, np.float32(1))  # a block below float32's range is one of zeros
        levels = np.clip(np.rint(blocks / divisors[:, None]), -127, 127).astype(np.int8)
        return [levels.ravel()[: vector.size].copy(), scales]

    def decode(self, arrays: Sequence[Array], size: int) -> Array:
        """Return integer times scale."""
        levels, scales = arrays
        _require(levels, np.int8, (size,))
        _require(scales, np.float32, (-(-size // BLOCK),))
        if not (np.isfinite(scales).all() and (scales >= 0).all()):
            raise ValueError("a scale is negative or not finite")
        return (_blocks(levels.astype(np.float32)) * scales[:, None]).ravel()[:size]


class Half:
    """IEEE half precision. What is beyond its range is sent at its end, the rest with later updates."""

    marker: np.dtype[np.generic] = np.dtype(np.float16)
    arrays = 1

    def encode(self, vector: Array) -> list[Array]:
        """Return the vector in half precision."""
        limit = float(np.finfo(np.float16).max)
        return [np.clip(vector, -limit, limit).astype(np.float16)]

    def decode(self, arrays: Sequence[Array], size: int) -> Array:
        """Return the vector in single precision."""
        (values,) = arrays
        _require(values, np.float16, (size,))
        return values.astype(np.float32)


class TopK:
    """The share ``keep`` of coordinates that are largest in magnitude, with their positions (8 bytes each)."""

    marker: np.dtype[np.generic] = np.dtype(np.uint32)
    arrays = 2

    def __init__(self, keep: float = 1.0) -> None:
        self._keep = keep

    def encode(self, vector: Array) -> list[Array]:
        """Return positions, ascending, and values."""
        count = min(vector.size, max(1, round(self._keep * vector.size)))
        largest: Array = np.argpartition(np.abs(vector), -count)[-count:] if count else np.zeros(0)
        positions = np.sort(largest.astype(np.uint32))
        return [positions, vector[positions].astype(np.float32)]

    def decode(self, arrays: Sequence[Array], size: int) -> Array:
        """Return a vector that is zero elsewhere."""
        positions, values = arrays
        if positions.ndim != 1 or len(positions) > size:
            raise ValueError(f"{positions.size} positions for {size} coordinates")
        _require(positions, np.uint32, positions.shape)
        _require(values, np.float32, positions.shape)
        if len(positions) and (positions[-1] >= size or (positions[1:] <= positions[:-1]).any()):
            raise ValueError("positions do not ascend below the number of coordinates")
        vector = np.zeros(size, np.float32)
        vector[positions] = values
        return vector


READERS: tuple[Codec, ...] = (Int8(), Half(), TopK())


def _blocks(vector: Array) -> Array:
    """Return rows of `BLOCK`, the last one filled up with zeros."""
    padded = np.zeros(-(-vector.size // BLOCK) * BLOCK, vector.dtype)
    padded[: vector.size] = vector
    return padded.reshape(-1, BLOCK)


def _require(array: Array, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"an array of {array.dtype} with shape {list(array.shape)} stands where {np.dtype(dtype)} with shape "
            f"{list(shape)} is due"
        )
