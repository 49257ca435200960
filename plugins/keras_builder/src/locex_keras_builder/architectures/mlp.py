"""The architecture ``mlp``: fully connected layers on flattened input; gives logits, or values for regression."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from locex.hookspecs import hookimpl
from locex.schemas.architecture import OutputConfig
from locex.schemas.job import Positive
from locex.schemas.plugin import PluginConfig
from locex_keras_builder.architectures.seeded import SeededLayers


class MlpConfig(OutputConfig):
    """A multilayer perceptron."""

    input_size: list[Positive] = Field(min_length=1, description="Sizes of one input, of any rank.")
    hidden: list[Positive] = Field(default=[128], description="Units of each hidden layer; [] is a linear model.")
    activation: Literal["relu", "gelu", "tanh", "sigmoid"] = Field(
        default="relu", description="Activation of the hidden layers."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of units dropped after each hidden layer.")


class MlpArchitecture:
    """A perceptron: dense layers with an activation after each but the last."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the architecture's fields."""
        return MlpConfig

    @hookimpl
    def locex_create_architecture(self, config: MlpConfig, seed: int) -> Any:
        """Return a new Keras 3 model with weights drawn from ``seed``."""
        layers = SeededLayers(seed)
        keras = layers.keras
        chain = [keras.Input(tuple(config.input_size), name="input"), keras.layers.Flatten(name="flatten")]
        for number, units in enumerate(config.hidden, start=1):
            chain.append(layers.dense(units, f"dense{number}", config.activation))
            chain += layers.dropout(config.dropout, f"dropout{number}")
        chain.append(layers.dense(config.units, "output"))
        return keras.Sequential(chain, name="mlp")
