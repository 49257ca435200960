"""The builder ``pytorch``."""

from __future__ import annotations

import importlib.util

from pydantic import Field, field_validator

from locex.api import BuildContext, TrainingSession
from locex.hookspecs import hookimpl
from locex.schemas.job import Export
from locex.schemas.plugin import PluginConfig
from locex_torch_builder.names import FormatName, LossName, MetricName


class PytorchExport(Export):
    """What is kept at the end, in formats that this builder writes."""

    formats: list[FormatName] = Field(default=["safetensors"], description="safetensors, onnx.")  # type: ignore[assignment]

    @field_validator("formats")
    @classmethod
    def _libraries_are_here(cls, formats: list[FormatName]) -> list[FormatName]:
        missing = [library for library in ("onnx", "onnxscript") if importlib.util.find_spec(library) is None]
        if "onnx" in formats and missing:
            raise ValueError(f"onnx needs {' and '.join(missing)}: pip install locex-torch-builder[onnx]")
        return formats


class PytorchBuilderConfig(PluginConfig):
    """What the builder takes of a job."""

    eval_func: LossName = Field(default="categorical_crossentropy", description="The loss; models give logits.")
    eval_metrics: list[MetricName] = Field(default=[], description="Metrics of training and evaluation.")
    export: PytorchExport = Field(default_factory=PytorchExport, description="What is kept at the end.")


class PytorchBuilder:
    """Builds a PyTorch training session from an artefact: named architecture with weights, or TorchScript."""

    @hookimpl
    def locex_config_model(self) -> type[PytorchBuilderConfig]:
        """Return what the builder takes of a job."""
        return PytorchBuilderConfig

    @hookimpl
    def locex_create_builder(self, config: PytorchBuilderConfig, context: BuildContext) -> TrainingSession:
        """Return a session; raise `InvalidModel`, `InvalidConfiguration` or `FormatMismatch` where parts do not fit."""
        from locex_torch_builder.session import PytorchSession

        return PytorchSession(context, config.eval_func, config.eval_metrics)
