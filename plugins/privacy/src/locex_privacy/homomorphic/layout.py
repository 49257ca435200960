"""A model's float tensors as one vector, which is cut into ciphertexts wherever they are full."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from locex.api import Array, Parameters


@dataclass(frozen=True, slots=True)
class Layout:
    """The order and shapes of a model's tensors. Integers and booleans are no part of the vector."""

    tensors: tuple[tuple[str, tuple[int, ...], str], ...]
    """Name, shape and NumPy's name of the type."""

    @classmethod
    def of(cls, parameters: Parameters) -> Layout:
        """Return a model's layout."""
        return cls(tuple((name, tensor.shape, tensor.dtype.str) for name, tensor in parameters.items()))

    @property
    def digest(self) -> str:
        """Equal for models of one layout only."""
        return hashlib.sha256(json.dumps(self.tensors).encode()).hexdigest()[:32]

    @property
    def size(self) -> int:
        """The length of the vector."""
        return sum(int(np.prod(shape)) for _, shape, dtype in self.tensors if is_float(dtype))

    def vector(self, parameters: Parameters) -> Array:
        """Return the float tensors as one float64 vector."""
        parts = [parameters[name].ravel() for name, _, dtype in self.tensors if is_float(dtype)]
        return np.concatenate([np.zeros(0), *parts], dtype=np.float64)

    def parameters(self, vector: Array, others: Parameters) -> Parameters:
        """Return the tensors of a vector, as float64, with ``others`` in the places of the rest."""
        found, start = {}, 0
        for name, shape, dtype in self.tensors:
            if is_float(dtype):
                size = int(np.prod(shape))
                found[name] = vector[start : start + size].reshape(shape)
                start += size
            else:
                found[name] = others[name]
        return found


def is_float(dtype: str) -> bool:
    """Tell whether a tensor of this type is part of the vector."""
    return np.dtype(dtype).kind == "f"


def size_of(tensors: list[Array]) -> int:
    """Return the length of the vector of a model whose names are not known."""
    return sum(tensor.size for tensor in tensors if tensor.dtype.kind == "f")
