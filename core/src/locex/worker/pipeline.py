"""Pipelines of transformations, on data and on formats."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from locex.api import Array, Dataset, ModelSignature, TensorSpec, Transform
from locex.errors import FormatMismatch
from locex.machine import free_memory, free_storage, has_gpu
from locex.schemas.data_format import DataFormat, SideFormat, TensorFormat


@dataclass(frozen=True, slots=True)
class Step:
    """One transformation with the id by which users know it."""

    name: str
    transform: Transform


Trail = list[tuple[str, DataFormat]]
"""The format at the source and after every step."""


def walk(source: DataFormat, steps: Sequence[Step]) -> Trail:
    """Pass the source's format through every step; raise `FormatMismatch` at the step that cannot take it."""
    trail: Trail = [("source", source)]
    for step in steps:
        try:
            before = trail[-1][1].model_copy(deep=True)  # a step that changes it in place must not rewrite the trail
            trail.append((step.name, step.transform.transform_format(before)))
        except ValueError as error:
            raise mismatch(f"step {len(trail)} ({step.name}) cannot take its input: {error}", trail) from None
    for _, form in trail:
        _require_types(form, trail)
    return trail


def apply(data: Dataset, steps: Sequence[Step], trail: Trail) -> Dataset:
    """Transform data step by step, checking that what comes out is what the step's format rule says."""
    for position, step in enumerate(steps, 1):
        data = step.transform.transform_data(data)
        for side, array in (("x", data.x), ("y", data.y)):
            difference = _disagreement(array, getattr(trail[position][1], side))
            if difference:
                what = f"step {position} ({step.name}) gave {side} with {difference}, which is not its own format rule"
                raise mismatch(what, trail[: position + 1])
    return data


def require(steps: Sequence[Step], storage: Path) -> None:
    """Check what the steps need of this machine; raise `FormatMismatch` naming the step and what lacks."""
    for step in steps:
        needs = step.transform.needs
        lacking = [f"the library {name}" for name in needs.libraries if not _importable(name)]
        if needs.memory > free_memory():
            lacking.append(f"{needs.memory} GiB of free memory")
        if needs.storage > free_storage(storage):
            lacking.append(f"{needs.storage} GiB of free storage")
        if needs.gpu and not has_gpu():
            lacking.append("a GPU")
        if lacking:
            raise FormatMismatch(
                f"the step {step.name} needs {' and '.join(lacking)}", remedy="remove the step or provide what it needs"
            )


def _importable(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ImportError:  # the package around a submodule is missing
        return False


def compare(trail: Trail, signature: ModelSignature, declared: DataFormat | None) -> None:
    """Compare the format after the last step with what the model takes and gives; raise `FormatMismatch`."""
    final = trail[-1][1]
    faults = [] if declared is None else _differences(final, declared)
    if signature.input is not None:
        faults += _against("x", final.x, signature.input)
    if signature.output is not None:
        faults += _against("y", final.y, signature.output)
    if faults:
        raise mismatch("; ".join(faults), trail)


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


def _require_types(form: DataFormat, trail: Trail) -> None:
    """Raise `FormatMismatch` for a word that names no type of NumPy's, as an operator's file may hold."""
    for side in (form.x, form.y):
        for kind, tensor in side.data_types.items():
            try:
                np.dtype(tensor.dtype)
            except TypeError:
                raise mismatch(f"{kind} has the unknown type {tensor.dtype!r}", trail) from None


def _disagreement(array: Array, form: SideFormat) -> str | None:
    if len(form.data_types) != 1:
        return None  # several kinds share one array in ways that only their steps know
    (tensor,) = form.data_types.values()
    if list(array.shape[1:]) != tensor.size:
        return f"size {list(array.shape[1:])} instead of {tensor.size}"
    if tensor.dtype and array.dtype != np.dtype(tensor.dtype):
        return f"type {array.dtype} instead of {tensor.dtype}"
    return None


def _differences(final: DataFormat, declared: DataFormat) -> list[str]:
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


def _against(side: str, form: SideFormat, spec: TensorSpec) -> list[str]:
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
