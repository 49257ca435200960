"""Mixed precision: layers compute in 16 bits, weights and the output layer stay in 32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from locex_keras_builder.kerases import Keras


class MixedPrecision:
    """Sets and takes back the policy of a Keras 3 model's layers."""

    def __init__(self, keras: Keras, model: Any, dtype: str) -> None:
        """Set the policy ``mixed_<dtype>``."""
        self._policy = keras.module.DTypePolicy(f"mixed_{dtype}")
        layers = [layer for layer in model._flatten_layers() if layer is not model]  # noqa: SLF001 -- all depths
        own = [layer for layer in layers if layer.dtype_policy.name == "float32" and layer is not model.layers[-1]]
        self._before = [(layer, layer.dtype_policy) for layer in own]
        self._set()

    def _set(self) -> None:
        for layer, _ in self._before:
            layer.dtype_policy = self._policy

    def undo(self) -> None:
        """Let every layer compute as it was saved."""
        for layer, policy in self._before:
            layer.dtype_policy = policy

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Compute as saved inside: what is exported has the model's own policy."""
        self.undo()
        try:
            yield
        finally:
            self._set()
