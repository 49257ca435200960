"""What architectures share: the number of output units, and layers with weights drawn from a seed."""

from __future__ import annotations

from itertools import count
from typing import Annotated, Any

from pydantic import Field, model_validator

from locex.schemas.plugin import PluginConfig

Positive = Annotated[int, Field(gt=0)]


class OutputConfig(PluginConfig):
    """The output units: as many as classes, unless ``outputs`` says otherwise."""

    num_classes: int | None = Field(default=None, ge=2, description="Classes; one output unit (logit) for each.")
    outputs: Positive | None = Field(
        default=None, description="Output units, for regression, or 1 for two classes with a binary loss."
    )

    @model_validator(mode="after")
    def _agree(self) -> OutputConfig:
        if self.num_classes is None and self.outputs is None:
            raise ValueError("num_classes or outputs must be given")
        given = (self.num_classes, self.outputs)
        if None not in given and given != (2, 1) and self.num_classes != self.outputs:
            raise ValueError("outputs must equal num_classes, or be 1 where num_classes is 2")
        return self

    @property
    def units(self) -> int:
        """The number of output units."""
        return self.outputs or self.num_classes or 0


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
