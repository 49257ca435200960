"""What a version takes and gives, ready to hold requests against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from locex.api import TensorInfo
from locex_inference.errors import InvalidInference, InvalidTensor
from locex_inference.tensors import BYTES, DTYPES

if TYPE_CHECKING:
    from locex.api import Array

_FLOATS = "fV"
"""Kinds of NumPy types that can hold NaN; bfloat16 is a ``V``."""


class _Input(NamedTuple):
    info: TensorInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    batched: bool
    """Whether the first axis is that of examples."""


class Signature:
    """The inputs and outputs of one version, and its bounds."""

    def __init__(
        self, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], *, max_rows: int, finite: bool = False
    ) -> None:
        """``max_rows`` bounds the examples of a request; ``finite`` refuses NaN and infinity."""
        self.outputs = tuple(info.name for info in outputs)
        self.fixed = all(size >= 0 for info in inputs for size in info.shape[1:])
        self._inputs = {info.name: _input(info) for info in inputs}
        self._max_rows = max_rows
        self._finite = finite

    def check(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> int:
        """Return the number of examples (1 where there is no such axis); raise `InvalidInference` naming the fault."""
        if len(inputs) != len(self._inputs):
            raise self._count(inputs)
        rows = 0
        for name, array in inputs.items():
            wanted = self._inputs.get(name)
            if wanted is None:
                raise self._count(inputs)
            if array.dtype != wanted.dtype:
                raise _datatype(wanted.info, array)
            if array.shape != wanted.shape:
                rows = _rows(wanted, array.shape, rows)
            if self._finite and array.dtype.kind in _FLOATS and not np.isfinite(array).all():
                raise InvalidTensor(f"{name!r} holds NaN or infinity, which the model's options refuse")
        if rows > self._max_rows:
            raise InvalidInference(
                f"the request holds {rows} examples, the model takes {self._max_rows} at once",
                remedy="send fewer at once, or raise the model's max_batch_size",
            )
        for name in outputs:
            if name not in self.outputs:
                raise InvalidInference(f"there is no output {name!r}; there are: {', '.join(self.outputs)}")
        return rows or 1

    def _count(self, inputs: Mapping[str, Array]) -> InvalidInference:
        unknown = [name for name in inputs if name not in self._inputs]
        missing = [name for name in self._inputs if name not in inputs]
        faults = [f"the input {name!r} is unknown" for name in unknown]
        faults += [f"the input {name!r} is missing" for name in missing]
        return InvalidInference(f"{'; '.join(faults)}; the model takes: {', '.join(self._inputs)}")


def _input(info: TensorInfo) -> _Input:
    return _Input(info, DTYPES[info.datatype], info.shape, batched=bool(info.shape) and info.shape[0] < 0)


def _rows(wanted: _Input, shape: tuple[int, ...], rows: int) -> int:
    """Return the examples of a tensor; ``rows`` are those of the tensors before it, 0: none had such an axis."""
    expected = wanted.shape
    if len(shape) != len(expected) or any(size not in (-1, given) for size, given in zip(expected, shape, strict=True)):
        raise InvalidTensor(f"{wanted.info.name!r} has the shape {list(shape)}, the model takes {list(expected)}")
    if not wanted.batched:
        return rows
    if not shape[0]:
        raise InvalidTensor(f"{wanted.info.name!r} holds no example")
    if rows and shape[0] != rows:
        raise InvalidInference(f"{wanted.info.name!r} holds {shape[0]} examples, the inputs before it {rows}")
    return shape[0]


def _datatype(info: TensorInfo, array: Array) -> InvalidTensor:
    given = next((name for name, dtype in DTYPES.items() if dtype == array.dtype), str(array.dtype))
    given = BYTES if array.dtype.kind in "SUO" else given
    return InvalidTensor(f"{info.name!r} is of type {given}, the model takes {info.datatype}")
