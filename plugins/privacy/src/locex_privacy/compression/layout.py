"""A model's float tensors as one vector, in the model's order; other tensors are left as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from locex.api import Array


def is_float(tensor: Array) -> bool:
    """Tell whether a tensor is part of the vector."""
    return tensor.dtype.kind == "f"


def size_of(tensors: Sequence[Array]) -> int:
    """Return the length of the vector."""
    return sum(tensor.size for tensor in tensors if is_float(tensor))


def differences(tensors: Sequence[Array], reference: Sequence[Array]) -> Array:
    """Return the differences of float tensors to their references as one float32 vector, taken in float64."""
    parts = [
        (tensor.astype(np.float64) - known).ravel()
        for tensor, known in zip(tensors, reference, strict=True)
        if is_float(known)
    ]
    with np.errstate(over="ignore"):  # what does not fit is refused by the caller
        return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def moved(reference: Sequence[Array], vector: Array, others: Sequence[Array]) -> list[Array]:
    """Return reference + vector for float tensors, in float64, and ``others`` in the places of the rest."""
    remaining, tensors, start = list(others), [], 0
    for known in reference:
        if is_float(known):
            tensors.append(known + vector[start : start + known.size].reshape(known.shape).astype(np.float64))
            start += known.size
        else:
            tensors.append(remaining.pop(0))
    return tensors
