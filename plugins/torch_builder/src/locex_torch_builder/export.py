"""A trained model as files: an artefact that the builder loads again, and what other programs read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from locex.errors import InvalidConfiguration
from locex_torch_builder.model import LoadedModel, first_line
from locex_torch_builder.torchscript import quietly

_FILES = {"pt2": "model.pt2", "torchscript": "model.pt", "onnx": "model.onnx"}


def require_formats(model: LoadedModel, formats: Sequence[str]) -> None:
    """Raise `InvalidConfiguration` for a format that this kind of model cannot become; before it is trained."""
    for position, name in enumerate(formats):
        if name not in model.formats:
            message = f"a {model.kind} cannot be exported as {name}; it can as {', '.join(sorted(model.formats))}"
            raise InvalidConfiguration(
                message,
                remedy="choose another export format, or upload the model as a .pt2 or a named architecture",
                errors=[{"path": f"/export/formats/{position}", "message": message}],
            )


def export_model(model: LoadedModel, example: Tensor, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the artefact, then the further formats, in evaluation mode; ``example`` is a batch of two inputs.

    A model that PyTorch cannot turn into a format is a warning of the job: what was trained is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.train(False)
    paths = [model.write(folder)]
    for name, file in _FILES.items():
        path = folder / file
        if name not in formats or path in paths:  # a kind's own format is the artefact itself
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # the exporters warn of their own deprecations
                _WRITERS[name](model.module, example, path)
        except Exception as error:  # noqa: BLE001 -- exporters raise what their many passes raise
            path.unlink(missing_ok=True)
            model.warn(f"the model was not exported as {name}: PyTorch says: {first_line(error)}")
        else:
            paths.append(path)
    return paths


def _exported(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _write_pt2(module: nn.Module, example: Tensor, path: Path) -> None:
    torch.export.save(_exported(module, example), path)


def _write_torchscript(module: nn.Module, example: Tensor, path: Path) -> None:
    with quietly():
        try:
            program = torch.jit.script(_plain(module) if isinstance(module, fx.GraphModule) else module)
        except Exception:  # noqa: BLE001 -- what the compiler of TorchScript cannot read is traced
            program = torch.jit.trace(module, (example,))  # type: ignore[no-untyped-call]
        torch.jit.save(program, path)


def _plain(module: fx.GraphModule) -> fx.GraphModule:
    """Return a graph in the words of TorchScript, which knows neither overloads nor trees of inputs."""
    graph = fx.Graph()
    output = graph.graph_copy(module.graph, {})
    for node in graph.nodes:
        node.target = getattr(node.target, "overloadpacket", node.target)
    graph.output(output[0] if isinstance(output, tuple | list) else output)
    return fx.GraphModule(module, graph)


def _write_onnx(module: nn.Module, example: Tensor, path: Path) -> None:
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"]}
    if isinstance(module, torch.jit.ScriptModule):
        axes = {"input": {0: "batch"}, "output": {0: "batch"}}
        # torch.export takes no TorchScript
        torch.onnx.export(module, (example,), path, dynamo=False, dynamic_axes=axes, **names)
    else:
        torch.onnx.export(_exported(module, example), (), path, external_data=False, verbose=False, **names)


_WRITERS: dict[str, Callable[[nn.Module, Tensor, Path], None]] = {
    "pt2": _write_pt2,
    "torchscript": _write_torchscript,
    "onnx": _write_onnx,
}
