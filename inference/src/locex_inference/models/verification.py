"""Whether a version that was loaded can be served: it is run, timed, and held against its golden outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from locex.api import TensorInfo
from locex.errors import InvalidConfiguration, InvalidModel
from locex_inference.errors import InferenceError
from locex_inference.models.golden import Golden
from locex_inference.models.options import ModelOptions
from locex_inference.tensors import BYTES, DTYPES, datatype_of

if TYPE_CHECKING:
    from locex.api import Array

    Run = Callable[[Mapping[str, Array], Sequence[str]], dict[str, Array]]

_SAMPLE_BYTES = 256 * 2**20
_REPEATS, _ENOUGH, _BUDGET = 5, 0.03, 3.0  # runs of one batch size; seconds for them, and for all sizes
_GAIN = 1.3
_ROWS = 3
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Subject:
    """A loaded version: ``run`` is the model alone, ``answer`` with its pipelines."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    model_inputs: tuple[TensorInfo, ...]
    model_outputs: tuple[TensorInfo, ...]
    run: Run
    answer: Run
    may_batch: bool = True
    """Whether requests may be joined before the model: not where pipelines run behind it in one process."""


@dataclass(slots=True)
class Findings:
    """Seconds per call by batch size, and whether requests may be joined."""

    costs: dict[int, float] = field(default_factory=dict)
    batching: bool = False


def verify(subject: Subject, options: ModelOptions, golden: Golden | None = None) -> Findings:
    """Run a version on samples of several batch sizes; raise `InvalidModel` where it must not be served."""
    names = [info.name for info in subject.model_outputs]
    findings = Findings()
    spent = 0.0
    for size in _batch_sizes(subject.model_inputs, options):
        sample = sample_of(subject.model_inputs, size, options.warmup_size)
        if findings.costs and _bytes(sample) > _SAMPLE_BYTES:
            break
        began = time.perf_counter()
        try:
            made = subject.run(sample, names)
        except InferenceError as error:
            if _has_free_axes(subject.model_inputs):  # what they stand for cannot be guessed
                break
            raise InvalidModel(f"the model fails on a sample of its inputs: {error.message}") from error
        check_outputs(made, subject.model_outputs, finite=golden is None)
        findings.costs[size] = _time(subject.run, sample, names)
        spent += time.perf_counter() - began
        if spent > _BUDGET:
            break
    if golden is not None:
        _hold(subject, options, golden)
    findings.batching = _batches(subject, options, findings.costs)
    return findings


def sample_of(inputs: Sequence[TensorInfo], batch: int, free: int) -> dict[str, Array]:
    """Return made-up inputs: floats between 0 and 1, integers 0, texts "a". Raise `InvalidModel` for absurd shapes."""
    generator = np.random.default_rng(0)
    shapes = {info.name: _shape(info, batch, free) for info in inputs}
    size = sum(math.prod(shapes[info.name]) * DTYPES[info.datatype].itemsize for info in inputs)
    if batch == 1 and size > _SAMPLE_BYTES:
        raise InvalidModel(
            f"one example of the model's inputs takes {size / _MIB:,.0f} MiB, served are up to {_SAMPLE_BYTES // _MIB}",
            remedy="export the model with the sizes that it is meant for",
        )
    if size > 2 * _SAMPLE_BYTES:
        shapes = {info.name: _shape(info, 1, free) for info in inputs}
    return {info.name: _values(info, shapes[info.name], generator) for info in inputs}


def check_outputs(made: Mapping[str, Array], declared: Sequence[TensorInfo], *, finite: bool = True) -> None:
    """Raise `InvalidModel` where outputs are not those that the model declares, or hold NaN or infinity."""
    for info in declared:
        array = made.get(info.name)
        if array is None:
            raise InvalidModel(f"the model declares the output {info.name!r} and does not give it")
        fits = len(array.shape) == len(info.shape) and all(
            want in (-1, have) for have, want in zip(array.shape, info.shape, strict=True)
        )
        if not fits or datatype_of(array) != info.datatype:
            raise InvalidModel(
                f"the model declares {info.name!r} as {info.datatype} {list(info.shape)} and gives "
                f"{datatype_of(array)} {list(array.shape)}"
            )
        if finite and array.dtype.kind in "fV" and not np.isfinite(array.astype(np.float32)).all():
            raise InvalidModel(
                f"the model's output {info.name!r} holds NaN or infinity on a sample of its inputs",
                remedy="serve an earlier version; or give golden inputs for which it is finite",
            )


def _hold(subject: Subject, options: ModelOptions, golden: Golden) -> None:
    """Raise `InvalidModel` where the outputs for the golden inputs are others than the golden ones."""
    try:
        made = subject.answer(golden.inputs, [*golden.outputs])
    except InferenceError as error:
        raise InvalidModel(f"the model fails on its golden inputs: {error.message}") from error
    for name, want in golden.outputs.items():
        have = made.get(name)
        difference = math.inf if have is None else golden.difference(have, want)
        if not difference <= options.tolerance:
            raise InvalidModel(
                f"the model's output {name!r} differs from the golden one by {difference:.3g}, "
                f"allowed is {options.tolerance:g}",
                remedy="serve an earlier version, or renew the golden file",
            )


def _batch_sizes(inputs: Sequence[TensorInfo], options: ModelOptions) -> list[int]:
    fixed = {info.shape[0] for info in inputs if info.shape and info.shape[0] >= 0}
    if fixed or not all(info.shape for info in inputs):
        return [max(fixed, default=1)]
    most = options.max_batch_size or max(options.warmup)
    return sorted({1, *(size for size in options.warmup if size <= most)})


def _time(run: Run, sample: Mapping[str, Array], names: Sequence[str]) -> float:
    """Return the least time of a few runs: what else the machine does only adds to it."""
    best, began = math.inf, time.perf_counter()
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run(sample, names)
        end = time.perf_counter()
        best = min(best, end - start)
        if end - began > _ENOUGH:
            break
    return best


def _batches(subject: Subject, options: ModelOptions, costs: Mapping[int, float]) -> bool:
    """Return whether requests may be joined: each row stands for itself, and there is a gain, or it is wanted."""
    if options.micro_batching == "off" or options.max_batch_size == 1:
        return False
    tensors = (*subject.model_inputs, *subject.model_outputs)
    possible = subject.may_batch and all(info.shape and info.shape[0] < 0 for info in tensors) and bool(costs)
    if options.micro_batching == "on":
        if not (possible and _rows_stand_alone(subject, options)):
            raise InvalidConfiguration(
                "micro_batching is on, but requests for this model cannot be joined: its batch axis is fixed, "
                "a row's result depends on the rows beside it, or its pipelines run in its process",
                remedy="set micro_batching to auto, or export the model with a dynamic batch axis",
            )
        return True
    gain = max((size * costs[1] / cost for size, cost in costs.items()), default=0.0) if possible else 0.0
    return gain > _GAIN and _rows_stand_alone(subject, options)


def _rows_stand_alone(subject: Subject, options: ModelOptions) -> bool:
    names = [info.name for info in subject.model_outputs]
    sample = sample_of(subject.model_inputs, _ROWS, options.warmup_size)
    try:
        together = subject.run(sample, names)
        alone = [
            subject.run({name: array[row : row + 1] for name, array in sample.items()}, names) for row in range(_ROWS)
        ]
    except InferenceError:
        return False
    return all(
        together[name].shape[:1] == (_ROWS,)
        and all(_close(together[name][row : row + 1], one[name]) for row, one in enumerate(alone))
        for name in names
    )


def _close(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "fV":
        return bool(np.array_equal(one, other))
    wide, loose = np.float64, one.dtype.itemsize < np.dtype(np.float32).itemsize
    return np.allclose(one.astype(wide), other.astype(wide), rtol=1e-2 if loose else 1e-4, atol=1e-2 if loose else 1e-5)


def _shape(info: TensorInfo, batch: int, free: int) -> tuple[int, ...]:
    first = () if not info.shape else (batch if info.shape[0] < 0 else info.shape[0],)
    return (*first, *(free if size < 0 else size for size in info.shape[1:]))


def _values(info: TensorInfo, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    dtype = DTYPES[info.datatype]
    if info.datatype == BYTES:
        return np.full(shape, b"a", dtype)
    if dtype.kind in "fV":
        return generator.random(shape, np.float32).astype(dtype)
    return np.zeros(shape, dtype)


def _has_free_axes(inputs: Sequence[TensorInfo]) -> bool:
    return any(size < 0 for info in inputs for size in info.shape[1:])


def _bytes(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())
