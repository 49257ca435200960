"""The architecture ``cnn``: convolution blocks, then fully connected layers; gives logits."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from locex.hookspecs import hookimpl
from locex.schemas.architecture import OutputConfig
from locex.schemas.job import Positive
from locex.schemas.plugin import PluginConfig
from locex_keras_builder.architectures.seeded import SeededLayers


class CnnConfig(OutputConfig):
    """A convolutional classifier of images."""

    input_size: list[Positive] = Field(
        min_length=2, max_length=3, description="Height, width, channels; or height, width of one channel."
    )
    channels: list[Positive] = Field(default=[16, 32], min_length=1, description="Channels of each convolution block.")
    kernel_size: Positive = Field(default=3, description="Side of the kernels, in pixels.")
    pool: Positive = Field(default=2, description="Side of the max-pooling after each block, in pixels; 1: none.")
    hidden: list[Positive] = Field(default=[64], description="Units of the fully connected layers before the output.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of units dropped before each connected layer.")
    batch_norm: bool = Field(default=False, description="Normalize batches after each convolution.")

    @model_validator(mode="after")
    def _leaves_pixels(self) -> CnnConfig:
        height, width = self.input_size[:2]
        for _ in self.channels:
            height, width = height // self.pool, width // self.pool
        if min(height, width) < 1:
            raise ValueError(f"{len(self.channels)} blocks with pool {self.pool} leave nothing of {self.input_size}")
        return self


class CnnArchitecture:
    """A convolutional network: blocks of convolution, ReLU and max-pooling, then dense layers with ReLU."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the architecture's fields."""
        return CnnConfig

    @hookimpl
    def locex_create_architecture(self, config: CnnConfig, seed: int) -> Any:
        """Return a new Keras 3 model with weights drawn from ``seed``."""
        layers = SeededLayers(seed)
        keras = layers.keras
        chain = [keras.Input(tuple(config.input_size), name="input")]
        if len(config.input_size) == 2:  # noqa: PLR2004 -- height and width
            chain.append(keras.layers.Reshape((*config.input_size, 1), name="channel_axis"))
        for number, channels in enumerate(config.channels, start=1):
            chain += _block(layers, config, number, channels)
        chain.append(keras.layers.Flatten(name="flatten"))
        for number, units in enumerate(config.hidden, start=1):
            chain += layers.dropout(config.dropout, f"dropout{number}")
            chain.append(layers.dense(units, f"dense{number}", "relu"))
        chain += layers.dropout(config.dropout, "dropout")
        chain.append(layers.dense(config.units, "output"))
        return keras.Sequential(chain, name="cnn")


def _block(layers: SeededLayers, config: CnnConfig, number: int, channels: int) -> list[Any]:
    kinds = layers.keras.layers
    block = [layers.convolution(channels, config.kernel_size, f"conv{number}")]
    if config.batch_norm:
        block.append(kinds.BatchNormalization(name=f"norm{number}"))
    block.append(kinds.ReLU(name=f"conv{number}_relu"))
    if config.pool > 1:
        block.append(kinds.MaxPooling2D(config.pool, name=f"pool{number}"))
    return block
