"""The names that users write for losses and export formats; this module imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

from locex.schemas.objectives import CommonLoss, plain_name

LossName = Annotated[Literal[CommonLoss, "poisson_nll"], BeforeValidator(plain_name)]

FormatName = Literal["safetensors", "pt2", "torchscript", "onnx"]
"""``safetensors`` stands for the artefact that the builder loads again, which is always written."""
