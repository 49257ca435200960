"""What the builder ``pytorch`` takes of a job; this module imports no torch."""

from __future__ import annotations

import importlib.util
from typing import Literal

from pydantic import Field, field_validator, model_validator

from locex.schemas.job import Export, WarmupConfig
from locex.schemas.objectives import MetricName
from locex.schemas.plugin import PluginConfig
from locex_torch_builder.names import FormatName, LossName


class PytorchExport(Export):
    """What is kept at the end, in formats that this builder writes."""

    formats: list[FormatName] = Field(  # type: ignore[assignment]
        default=["safetensors"], description="safetensors (the artefact, always written), pt2, torchscript, onnx."
    )

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
    warmup_config: WarmupConfig | None = Field(default=None, description="A linear warm-up of the learning rate.")
    export: PytorchExport = Field(default_factory=PytorchExport, description="What is kept at the end.")
    gradient_clip_norm: float | None = Field(
        default=None, gt=0, description="Gradients are scaled down to this norm, taken over all of them together."
    )
    gradient_clip_value: float | None = Field(
        default=None, gt=0, description="Every element of a gradient is kept within plus and minus this value."
    )
    mixed_precision: Literal["float16", "bfloat16"] | None = Field(
        default=None,
        description="Run the model in this type, weights stay as they are; float16 needs a GPU. A machine without "
        "it trains in full precision and warns.",
    )
    compile: bool = Field(
        default=False,
        description="Compile the model (torch.compile), which takes some time at the start; where that fails it runs "
        "as it is, with a warning.",
    )

    @model_validator(mode="after")
    def _clips_once(self) -> PytorchBuilderConfig:
        if self.gradient_clip_norm is not None and self.gradient_clip_value is not None:
            raise ValueError("gradient_clip_norm and gradient_clip_value exclude each other: give one")
        return self
