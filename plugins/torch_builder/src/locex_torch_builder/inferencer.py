"""The inferencer ``torch``; this module imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from locex.api import Inferencer, InferencerContext
from locex.artefacts.datatypes import DATATYPES
from locex.hookspecs import hookimpl
from locex.schemas.base import Configuration
from locex.schemas.plugin import PluginConfig

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16"
]
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}


class InputConfig(Configuration):
    """One input of a program that does not tell it itself."""

    name: str = Field(default="input", min_length=1, description="The name that callers use.")
    datatype: Datatype = Field(default="FP32", description="The protocol's name of the element type.")
    shape: list[int] = Field(min_length=1, description="Sizes with the axis of examples; -1: any.")


class TorchInferencerConfig(PluginConfig):
    """What a model does not tell itself, and where it runs."""

    inputs: list[InputConfig] = Field(
        default=[], description="The inputs in order: needed for TorchScript, which does not tell them."
    )
    outputs: list[str] = Field(
        default=[], description="Names of the outputs in order; absent: output, or output0, output1, …."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where there is one.")


class TorchInferencer:
    """Serves torch.export programs, TorchScript and named architectures of PyTorch."""

    formats: ClassVar[tuple[str, ...]] = ("torch-export", "torchscript", "architecture/pytorch")
    platform: ClassVar[str] = "pytorch"

    @hookimpl
    def locex_config_model(self) -> type[TorchInferencerConfig]:
        """Return what may be said of a model."""
        return TorchInferencerConfig

    @hookimpl
    def locex_create_inferencer(self, config: TorchInferencerConfig, context: InferencerContext) -> Inferencer:
        """Return the loaded model; raise `InvalidModel` or `InvalidConfiguration`."""
        from locex_torch_builder.serving import load_inferencer

        return load_inferencer(config, context)
