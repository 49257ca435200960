"""The inferencer ``onnx``: onnxruntime, in the service's own process for speed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from locex.api import Inferencer, InferencerContext
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_inference.inferencers.onnx_cost import bounded


class OnnxConfig(PluginConfig):
    """How onnxruntime computes."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a CUDA GPU where this build of onnxruntime and the machine have one."
    )
    optimization: Literal["none", "basic", "extended", "all"] = Field(
        default="all", description="How far the graph is optimized when it is loaded."
    )
    spinning: bool = Field(
        default=False, description="Whether idle threads of a call spin: a little faster alone, costly beside others."
    )


class Onnx:
    """Runs ONNX models with onnxruntime."""

    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    platform: ClassVar[str] = "onnxruntime_onnx"

    @hookimpl
    def locex_config_model(self) -> type[OnnxConfig]:
        """Return how onnxruntime computes."""
        return OnnxConfig

    def bounded(self, path: Path) -> bool:
        """Return whether shapes bound what a call takes, so that it may run in the service's own process."""
        return bounded(path)

    @hookimpl
    def locex_create_inferencer(self, config: OnnxConfig, context: InferencerContext) -> Inferencer:
        """Return a session over the model; raise `InvalidModel`."""
        from locex_inference.inferencers.onnx_session import OnnxInferencer

        return OnnxInferencer(config, context)
