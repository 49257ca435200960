"""The architecture ``mlp``: fully connected layers on flattened input; gives logits, or values for regression."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from locex.hookspecs import hookimpl
from locex.schemas.architecture import OutputConfig
from locex.schemas.job import Positive
from locex.schemas.plugin import PluginConfig
from locex_torch_builder.architectures.seeded import build

if TYPE_CHECKING:
    from torch import nn

ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU", "tanh": "Tanh", "sigmoid": "Sigmoid"}


class MlpConfig(OutputConfig):
    """A multilayer perceptron."""

    input_size: list[Positive] = Field(min_length=1, description="Sizes of one input, of any rank.")
    hidden: list[Positive] = Field(default=[128], description="Units of each hidden layer; [] is a linear model.")
    activation: Literal["relu", "gelu", "tanh", "sigmoid"] = Field(
        default="relu", description="Activation of the hidden layers."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of units dropped after each hidden layer.")


class MlpArchitecture:
    """A perceptron: linear layers with an activation after each but the last."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the architecture's fields."""
        return MlpConfig

    @hookimpl
    def locex_create_architecture(self, config: MlpConfig, seed: int) -> nn.Module:
        """Return a new module with weights drawn from ``seed``."""
        return build(lambda: _layers(config), config.input_size, config.units, seed)


def _layers(config: MlpConfig) -> dict[str, nn.Module]:
    from torch import nn

    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    features = math.prod(config.input_size)
    for number, units in enumerate(config.hidden, start=1):
        layers[f"linear{number}"] = nn.Linear(features, units)
        layers[f"{config.activation}{number}"] = getattr(nn, ACTIVATIONS[config.activation])()
        if config.dropout:
            layers[f"dropout{number}"] = nn.Dropout(config.dropout)
        features = units
    layers["output"] = nn.Linear(features, config.units)
    return layers
