"""What the builder ``keras`` takes of a job; this module imports no Keras."""

from __future__ import annotations

import importlib.util
from typing import Literal

from pydantic import Field, field_validator, model_validator

from locex.schemas.job import Export
from locex.schemas.objectives import MetricName
from locex.schemas.plugin import PluginConfig
from locex_keras_builder.names import FormatName, LossName


class KerasExport(Export):
    """What is kept at the end, in formats that this builder writes."""

    formats: list[FormatName] = Field(  # type: ignore[assignment]
        default=["safetensors"],
        description="onnx, saved_model, tflite, keras; the artefact that the builder loads again is always written.",
    )

    @field_validator("formats")
    @classmethod
    def _libraries_are_here(cls, formats: list[FormatName]) -> list[FormatName]:
        missing = [library for library in ("onnx", "tf2onnx") if importlib.util.find_spec(library) is None]
        if "onnx" in formats and missing:
            raise ValueError(f"onnx needs {' and '.join(missing)}: pip install locex-keras-builder[onnx]")
        return formats


class KerasBuilderConfig(PluginConfig):
    """What the builder takes of a job."""

    eval_func: LossName = Field(default="categorical_crossentropy", description="The loss.")
    eval_metrics: list[MetricName] = Field(default=[], description="Metrics of training and evaluation.")
    export: KerasExport = Field(default_factory=KerasExport, description="What is kept at the end.")
    gradient_clip_norm: float | None = Field(
        default=None, gt=0, description="Gradients are scaled down to this norm over all weights."
    )
    gradient_clip_value: float | None = Field(
        default=None, gt=0, description="Each gradient element is cut to ± this value."
    )
    mixed_precision: Literal["float16", "bfloat16"] | None = Field(
        default=None, description="Computes in this type and keeps float32 weights; falls back with a warning."
    )
    compile: bool = Field(
        default=False, description="Compiles steps with XLA (jit_compile); falls back with a warning."
    )

    @model_validator(mode="after")
    def _clips_once(self) -> KerasBuilderConfig:
        if self.gradient_clip_norm is not None and self.gradient_clip_value is not None:
            raise ValueError("gradient_clip_norm and gradient_clip_value exclude each other: give one")
        return self
