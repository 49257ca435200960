"""The way of a format through a pipeline, and whether what comes out is what a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from locex.api import ModelSignature, TensorSpec
from locex.errors import FormatMismatch, StepFailed
from locex.pipelines.steps import Step
from locex.schemas.data_format import DataFormat, SideFormat, TensorFormat

Trail = list[tuple[str, DataFormat]]
"""The format at the source and after every step."""


def walk(source: DataFormat, steps: Sequence[Step]) -> Trail:
    """Pass the source's format through every step; raise `FormatMismatch` at the step that cannot take it."""
    trail, fault = follow(source, steps)
    if fault:
        raise mismatch(fault, trail)
    return trail


def follow(source: DataFormat, steps: Sequence[Step]) -> tuple[Trail, str | None]:
    """Return the way of a format as far as it goes, and why it goes no further."""
    trail: Trail = [("source", source)]
    for step in steps:
        try:
            before = trail[-1][1].model_copy(deep=True)  # a step that changes it in place must not rewrite the trail
            after: Any = step.transform.transform_format(before)
        except ValueError as error:
            return trail, f"{step.label} cannot take its input: {error}"
        except (Exception, SystemExit) as error:
            raise StepFailed(step.label, f"raised {type(error).__name__} over the format: {error}") from error
        if not isinstance(after, DataFormat):
            raise StepFailed(step.label, f"gave {type(after).__name__} as its format, not a DataFormat")
        trail.append((step.name, after))
    for _, form in trail:
        if fault := _unknown_type(form):
            return trail, fault
    return trail, None


def differences(final: DataFormat, signature: ModelSignature, declared: DataFormat | None) -> list[str]:
    """Return what differs between the data's format and the model's; ``declared`` is the site's word of the latter."""
    faults = [] if declared is None else _from_declared(final, declared)
    if signature.input is not None:
        faults += against("x", final.x, signature.input)
    if signature.output is not None:
        faults += against("y", final.y, signature.output)
    return faults


def mismatch(what: str, trail: Trail) -> FormatMismatch:
    """Return the error that shows, step by step, where the format went wrong."""
    steps = "\n".join(f"  {number}. {name}: {describe(form)}" for number, (name, form) in enumerate(trail))
    return FormatMismatch(
        f"the data does not fit the model: {what}\nthe format step by step:\n{steps}",
        remedy="change the pipeline (transformations) or choose a model that takes this format",
        errors=[{"path": f"/steps/{number}", "message": describe(form)} for number, (_, form) in enumerate(trail)],
    )


def describe(data_format: DataFormat) -> str:
    """Return a format in one line: ``x image [28, 28] uint8, y categorical [] int64``."""
    return ", ".join(
        f"{side} " + " + ".join(f"{kind} {_tensor(tensor)}" for kind, tensor in form.data_types.items())
        for side, form in (("x", data_format.x), ("y", data_format.y))
    )


def _tensor(tensor: TensorFormat) -> str:
    return f"{tensor.size} {tensor.dtype or 'any type'}"


def _unknown_type(form: DataFormat) -> str | None:
    """Return a word that names no type of NumPy's, as an operator's file may hold."""
    for side in (form.x, form.y):
        for kind, tensor in side.data_types.items():
            try:
                np.dtype(tensor.dtype)
            except TypeError:
                return f"{kind} has the unknown type {tensor.dtype!r}"
    return None


def _from_declared(final: DataFormat, declared: DataFormat) -> list[str]:
    faults: list[str] = []
    for side in ("x", "y"):
        have, want = getattr(final, side).data_types, getattr(declared, side).data_types
        if have.keys() != want.keys():
            faults.append(f"{side} is {', '.join(have)}, the model takes {', '.join(want)}")
        for kind in have.keys() & want.keys():
            if have[kind].size != want[kind].size:
                faults.append(f"{side} {kind} has the size {have[kind].size}, the model takes {want[kind].size}")
            if have[kind].dtype and want[kind].dtype and have[kind].dtype != want[kind].dtype:
                faults.append(f"{side} {kind} has the type {have[kind].dtype}, the model takes {want[kind].dtype}")
    return faults


def against(side: str, form: SideFormat, spec: TensorSpec) -> list[str]:
    """Return what differs between the format of one side and a tensor that a model takes (x) or gives (y)."""
    if len(form.data_types) != 1:
        return [f"{side} has {len(form.data_types)} kinds, the model has one tensor"]
    (tensor,) = form.data_types.values()
    sizes = [tensor.size] if side == "x" else _target_sizes(tensor, spec)
    faults = []
    if not any(_fits(size, spec.size) for size in sizes):
        want = [size if size is not None else "any" for size in spec.size]
        verb = "takes" if side == "x" else "gives"
        rank = "" if len(tensor.size) == len(want) else f" of rank {len(tensor.size)}, not {len(want)}"
        faults.append(f"{side} has the size {tensor.size}{rank}, the model {verb} {want}")
    if side == "x" and tensor.dtype and np.dtype(tensor.dtype).kind != np.dtype(spec.dtype).kind:
        faults.append(f"x has the type {tensor.dtype}, the model takes {spec.dtype}")
    return faults


def _target_sizes(tensor: TensorFormat, spec: TensorSpec) -> list[list[int]]:
    """Return sizes that mean the same target: an index for a score per class, a bare number for one unit."""
    sizes = [tensor.size]
    integer = tensor.dtype is None or np.dtype(tensor.dtype).kind in "iub"
    if tensor.size in ([], [1]) and len(spec.size) == 1 and (integer or spec.size == (1,)):
        sizes.append([size or 1 for size in spec.size])
    return sizes


def _fits(size: list[int], spec: tuple[int | None, ...]) -> bool:
    return len(size) == len(spec) and all(want in (None, have) for have, want in zip(size, spec, strict=True))
