"""A trained model as files: an artefact that the builder loads again, and ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from locex_torch_builder.artefact import LoadedModel, write_artefact


def export_model(model: LoadedModel, example: Tensor, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the artefact, then the further formats; ``example`` is a batch of two inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    model.module.eval()
    paths = [_write_artefact(model, folder)]
    if "onnx" in formats:
        paths.append(folder / "model.onnx")
        _write_onnx(model.module, example, paths[-1])
    return paths


def _write_artefact(model: LoadedModel, folder: Path) -> Path:
    if model.manifest is None:
        path = folder / "model.pt"
        with warnings.catch_warnings():  # deprecated, and yet the artefact's own format
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(model.module, path)
        return path
    path = folder / "model.zip"
    # the weights are no longer those drawn from the seed
    write_artefact(path, model.manifest.model_copy(update={"seed": None}), model.module)
    return path


def _write_onnx(module: torch.nn.Module, example: Tensor, path: Path) -> None:
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"]}
    with warnings.catch_warnings():  # the exporters warn of their own deprecations
        warnings.simplefilter("ignore")
        if isinstance(module, torch.jit.ScriptModule):
            axes = {"input": {0: "batch"}, "output": {0: "batch"}}
            # torch.export takes no TorchScript
            torch.onnx.export(module, (example,), path, dynamo=False, dynamic_axes=axes, **names)
        else:
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(
                module, (example,), path, dynamic_shapes=shapes, external_data=False, verbose=False, **names
            )
