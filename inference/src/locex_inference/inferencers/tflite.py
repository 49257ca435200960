"""The inferencer ``tflite``: LiteRT, for TensorFlow Lite's models."""

from __future__ import annotations

import importlib.util
from typing import ClassVar

from pydantic import Field

from locex.api import Inferencer, InferencerContext
from locex.errors import LocexError
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class TfliteConfig(PluginConfig):
    """Which signature is served."""

    signature: str | None = Field(
        default=None, description="The signature whose names callers use; absent: the model's only one, if it has one."
    )


class Tflite:
    """Runs TensorFlow Lite's models with LiteRT."""

    formats: ClassVar[tuple[str, ...]] = ("tflite",)
    platform: ClassVar[str] = "litert_tflite"

    @hookimpl
    def locex_config_model(self) -> type[TfliteConfig]:
        """Return which signature is served."""
        return TfliteConfig

    @hookimpl
    def locex_create_inferencer(self, config: TfliteConfig, context: InferencerContext) -> Inferencer:
        """Return an interpreter over the model; raise `InvalidModel`."""
        if importlib.util.find_spec("ai_edge_litert") is None:
            raise LocexError(
                "the inferencer tflite needs LiteRT",
                remedy="pip install locex-inference[tflite]",
                code="plugin-broken",
            )
        from locex_inference.inferencers.tflite_interpreter import TfliteInferencer

        return TfliteInferencer(config, context)
