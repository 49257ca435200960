"""The inferencer ``keras``; this module imports no Keras."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from locex.api import Inferencer, InferencerContext
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class KerasInferencerConfig(PluginConfig):
    """How a model is run."""

    compile: bool = Field(
        default=False, description="Compile with XLA: faster for large models, slower to load; for fixed sizes only."
    )
    signature: str = Field(
        default="serving_default", min_length=1, description="The signature that is served of a SavedModel."
    )


class KerasInferencer:
    """Serves ``.keras`` files, SavedModels and named architectures of Keras."""

    formats: ClassVar[tuple[str, ...]] = ("keras", "savedmodel", "architecture/keras")
    platform: ClassVar[str] = "keras"

    @hookimpl
    def locex_config_model(self) -> type[KerasInferencerConfig]:
        """Return how a model is run."""
        return KerasInferencerConfig

    @hookimpl
    def locex_create_inferencer(self, config: KerasInferencerConfig, context: InferencerContext) -> Inferencer:
        """Return the loaded model; raise `InvalidModel`."""
        from locex_keras_builder.serving import load_inferencer

        return load_inferencer(config, context)
