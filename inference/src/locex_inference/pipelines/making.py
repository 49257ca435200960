"""From a version's options to its pipelines, and to the tensors that callers see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from locex.api import TensorInfo, TensorSpec
from locex.errors import InvalidConfiguration
from locex.pipelines.saved import SavedPipeline, SavedStep, restore
from locex.pipelines.steps import Step, made_by
from locex.pipelines.trail import against, mismatch
from locex.plugins.catalog import Catalog
from locex.plugins.host import Host
from locex.schemas.data_format import DataFormat, SideFormat
from locex_inference.models.options import ModelOptions
from locex_inference.models.options import Step as NamedStep
from locex_inference.pipelines.serving import ServingPipeline, TensorSteps, format_of, info_of, steps_on
from locex_inference.tensors import BYTES, DTYPES

if TYPE_CHECKING:
    from locex.api import Array

_NO_TARGETS = SideFormat(data_types={})


@dataclass(frozen=True, slots=True)
class Pipelines:
    """The pipelines of a version, None where there are no steps; ``inputs`` and ``outputs`` are what callers see."""

    before: ServingPipeline | None
    after: ServingPipeline | None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


class Maker:
    """Makes steps of installed plugins."""

    def __init__(self, host: Host, catalog: Catalog, options: ModelOptions, training: SavedPipeline | None) -> None:
        self._host = host
        self._catalog = catalog
        self._options = options
        self._training = training

    def pipelines(self, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> Pipelines:
        """Return the pipelines around a model of these tensors; raise what does not go together."""
        before = self._before(inputs)
        after = self._after(outputs)
        return Pipelines(
            ServingPipeline(before, before=True) if before else None,
            ServingPipeline(after, before=False) if after else None,
            tuple(_seen_before(info, before) for info in inputs),
            tuple(_seen_after(info, after) for info in outputs),
        )

    def _before(self, inputs: tuple[TensorInfo, ...]) -> list[TensorSteps]:
        if self._options.pipeline == "training":
            return [self._as_trained(inputs)]
        parts = []
        for info, named in _by_tensor(self._options.preprocessing or [], inputs, "preprocessing"):
            if self._options.format is None:
                raise InvalidConfiguration(
                    "preprocessing needs the format of what callers send",
                    remedy='give it as format ({"data_types": …}) in model.json, or as format.json',
                )
            source = DataFormat(x=self._options.format, y=_NO_TARGETS)
            parts.append(_fitting(steps_on(info, self._steps(named), source), info))
        return parts

    def _after(self, outputs: tuple[TensorInfo, ...]) -> list[TensorSteps]:
        return [
            steps_on(info, self._steps(named), DataFormat(x=format_of(info), y=_NO_TARGETS))
            for info, named in _by_tensor(self._options.postprocessing or [], outputs, "postprocessing")
        ]

    def _as_trained(self, inputs: tuple[TensorInfo, ...]) -> TensorSteps:
        if self._training is None:
            raise InvalidConfiguration(
                "the version has no pipeline of a training: its metadata hold none",
                remedy="serve a version that a node trained, or give the steps as preprocessing",
            )
        if len(inputs) != 1:
            raise InvalidConfiguration(
                f"a training's pipeline gives one tensor, the model takes {len(inputs)}",
                remedy="give the steps as preprocessing, each with its tensor",
            )
        steps = [self._restored(saved, number) for number, saved in enumerate(self._training.steps, 1)]
        return _fitting(steps_on(inputs[0], steps, self._training.format), inputs[0])

    def _restored(self, saved: SavedStep, number: int) -> Step:
        step = self._step(saved.id, saved.parameters, number, " of the training's pipeline")
        restore(step, saved)
        return step

    def _steps(self, named: Sequence[NamedStep]) -> list[Step]:
        made = [self._step(step.id, step.parameters, number) for number, step in enumerate(named, 1)]
        for step in made:
            if step.learns:
                raise InvalidConfiguration(
                    f"{step.label} learns from training data, of which serving has none",
                    remedy='serve with "pipeline": "training", or give its numbers with basic_norm',
                )
        return [step for step in made if not step.random]

    def _step(self, name: str, fields: dict[str, object], number: int, where: str = "") -> Step:
        loaded = self._host.load(self._catalog.find("transform", name))
        return made_by(self._host, self._host.configure(loaded, fields), number, where)


def step_names(options: ModelOptions, training: SavedPipeline | None) -> set[str]:
    """Return the names of all transformations that serve a version."""
    names = {step.id for step in (*(options.preprocessing or []), *(options.postprocessing or []))}
    if training is not None and options.pipeline == "training":
        names |= {step.id for step in training.steps}
    return names


def _by_tensor(
    steps: Sequence[NamedStep], tensors: tuple[TensorInfo, ...], what: str
) -> list[tuple[TensorInfo, list[NamedStep]]]:
    """Return each tensor that steps act on, with them."""
    known = {info.name: info for info in tensors}
    found: dict[str, list[NamedStep]] = {}
    for number, step in enumerate(steps):
        name = step.tensor if step.tensor is not None else next(iter(known)) if len(known) == 1 else ""
        if name not in known:
            raise InvalidConfiguration(
                f"step {number + 1} ({step.id}) of the {what} acts on {name!r}; the model has {', '.join(known)}",
                remedy="name one of them as the step's tensor",
                errors=[{"path": f"/{what}/{number}/tensor", "message": "no tensor of the model's"}],
            )
        found.setdefault(name, []).append(step)
    return [(known[name], named) for name, named in found.items()]


def _fitting(part: TensorSteps, info: TensorInfo) -> TensorSteps:
    """Return the steps; raise `FormatMismatch` where they do not end with what the model takes."""
    forms = [part.source, *part.forms]
    tensor = next(iter(forms[-1].x.data_types.values()))
    dtype = tensor.dtype or "object" if info.datatype == BYTES else DTYPES[info.datatype].name
    spec = TensorSpec(tuple(None if size < 0 else size for size in info.shape[1:]), dtype)
    faults = against("x", forms[-1].x, spec)
    if not faults and tensor.dtype and info.datatype != BYTES and np.dtype(tensor.dtype) != DTYPES[info.datatype]:
        faults = [f"x has the type {tensor.dtype}, the model takes {dtype}"]
    if faults:
        names = ["source", *(step.name for step in part.steps)]
        raise mismatch("; ".join(faults), list(zip(names, forms, strict=True)))
    return part


def _seen_before(info: TensorInfo, parts: Sequence[TensorSteps]) -> TensorInfo:
    part = next((one for one in parts if one.tensor == info.name), None)
    if part is None:
        return info
    return info_of(info.name, part.source.x, info.shape[0] if info.shape else -1)


def _seen_after(info: TensorInfo, parts: Sequence[TensorSteps]) -> TensorInfo:
    part = next((one for one in parts if one.tensor == info.name), None)
    if part is None:
        return info
    shape = [1, *(max(size, 1) for size in info.shape[1:])]
    made = part(_zeros(shape, info.datatype), {})
    return info_of(info.name, part.forms[-1].x, info.shape[0], made.dtype)


def _zeros(shape: Sequence[int], datatype: str) -> Array:
    if datatype == BYTES:
        return np.full(shape, b"", DTYPES[BYTES])
    return np.zeros(shape, DTYPES[datatype])
