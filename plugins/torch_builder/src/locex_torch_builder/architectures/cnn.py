"""The architecture ``cnn``: convolution blocks, then fully connected layers; gives logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from locex.hookspecs import hookimpl
from locex.schemas.architecture import OutputConfig
from locex.schemas.job import Positive
from locex.schemas.plugin import PluginConfig
from locex_torch_builder.architectures.seeded import build

if TYPE_CHECKING:
    from torch import nn


class CnnConfig(OutputConfig):
    """A convolutional classifier of images."""

    input_size: list[Positive] = Field(
        min_length=2, max_length=3, description="Channels, height, width; or height, width of one channel."
    )
    channels: list[Positive] = Field(default=[16, 32], min_length=1, description="Channels of each convolution block.")
    kernel_size: Positive = Field(default=3, description="Side of the kernels, in pixels.")
    pool: Positive = Field(default=2, description="Side of the max-pooling after each block, in pixels; 1: none.")
    hidden: list[Positive] = Field(default=[64], description="Units of the fully connected layers before the output.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of units dropped before each connected layer.")
    batch_norm: bool = Field(default=False, description="Normalize batches after each convolution.")

    @model_validator(mode="after")
    def _leaves_pixels(self) -> CnnConfig:
        if min(self.extent()) < 1:
            raise ValueError(f"{len(self.channels)} blocks with pool {self.pool} leave nothing of {self.input_size}")
        return self

    def extent(self) -> tuple[int, int]:
        """Return height and width after all blocks."""
        height, width = self.input_size[-2:]
        grown = 2 * (self.kernel_size // 2) - self.kernel_size + 1
        for _ in self.channels:
            height, width = (height + grown) // self.pool, (width + grown) // self.pool
        return height, width


class CnnArchitecture:
    """A convolutional network: blocks of convolution, ReLU and max-pooling, then linear layers with ReLU."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the architecture's fields."""
        return CnnConfig

    @hookimpl
    def locex_create_architecture(self, config: CnnConfig, seed: int) -> nn.Module:
        """Return a new module with weights drawn from ``seed``."""
        return build(lambda: _layers(config), config.input_size, config.units, seed)


def _layers(config: CnnConfig) -> dict[str, nn.Module]:
    from torch import nn

    layers: dict[str, nn.Module] = {}
    if len(config.input_size) == 2:  # noqa: PLR2004 -- height and width
        layers["channel_axis"] = nn.Unflatten(1, (1, config.input_size[0]))
    incoming = 1 if len(config.input_size) == 2 else config.input_size[0]  # noqa: PLR2004 -- likewise
    for number, channels in enumerate(config.channels, start=1):
        layers |= _block(config, number, incoming, channels)
        incoming = channels
    layers["flatten"] = nn.Flatten()
    height, width = config.extent()
    features = incoming * height * width
    for number, units in enumerate(config.hidden, start=1):
        layers |= _dropout(config, f"dropout{number}")
        layers[f"linear{number}"] = nn.Linear(features, units)
        layers[f"relu{number}"] = nn.ReLU()
        features = units
    layers |= _dropout(config, "dropout")
    layers["output"] = nn.Linear(features, config.units)
    return layers


def _block(config: CnnConfig, number: int, incoming: int, channels: int) -> dict[str, nn.Module]:
    from torch import nn

    size = config.kernel_size
    block: dict[str, nn.Module] = {f"conv{number}": nn.Conv2d(incoming, channels, size, padding=size // 2)}
    if config.batch_norm:
        block[f"norm{number}"] = nn.BatchNorm2d(channels)
    block[f"conv{number}_relu"] = nn.ReLU()
    if config.pool > 1:
        block[f"pool{number}"] = nn.MaxPool2d(config.pool)
    return block


def _dropout(config: CnnConfig, name: str) -> dict[str, nn.Module]:
    from torch import nn

    return {name: nn.Dropout(config.dropout)} if config.dropout else {}
