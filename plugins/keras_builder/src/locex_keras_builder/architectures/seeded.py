"""What architectures share: layers with weights drawn from a seed."""

from __future__ import annotations

from itertools import count
from typing import Any


class SeededLayers:
    """Makes Keras 3 layers whose weights and drop-outs are drawn from one seed; no global generator is touched."""

    def __init__(self, seed: int) -> None:
        """Begin with a seed."""
        from locex_keras_builder.kerases import import_keras

        self.keras = import_keras("keras").module
        # each layer needs a seed of its own; Keras takes 32 bits
        self._seeds = ((seed * 1_000_003 + number) % 2**31 for number in count())

    def dense(self, units: int, name: str, activation: str | None = None) -> Any:
        """Return a fully connected layer."""
        return self.keras.layers.Dense(units, activation=activation, name=name, kernel_initializer=self._glorot())

    def convolution(self, channels: int, size: int, name: str) -> Any:
        """Return a convolution that keeps height and width."""
        return self.keras.layers.Conv2D(channels, size, padding="same", name=name, kernel_initializer=self._glorot())

    def dropout(self, share: float, name: str) -> list[Any]:
        """Return a drop-out, or nothing where its share is 0."""
        return [self.keras.layers.Dropout(share, name=name, seed=next(self._seeds))] if share else []

    def _glorot(self) -> Any:
        return self.keras.initializers.GlorotUniform(seed=next(self._seeds))
