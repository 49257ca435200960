"""Steps around a model that is served: held to the model's formats when it is loaded, then run for every request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from locex.api import Dataset, TensorInfo
from locex.errors import LocexError, StepFailed
from locex.pipelines.steps import Step, transformed
from locex.pipelines.trail import walk
from locex.schemas.data_format import DataFormat, SideFormat, TensorFormat
from locex_inference.errors import InferenceError, InvalidInference, ModelFailed
from locex_inference.tensors import BYTES, DTYPES, as_bytes

if TYPE_CHECKING:
    from locex.api import Array

_KIND = "numerical"


@dataclass(frozen=True, slots=True)
class TensorSteps:
    """The steps on one tensor, with the format before them and after each."""

    tensor: str
    steps: Sequence[Step]
    source: DataFormat
    forms: Sequence[DataFormat]

    def __call__(self, array: Array, values: dict[str, Any]) -> Array:
        """Return what the steps make of a tensor; targets, which a request has not, are zeros."""
        data = Dataset(array, _targets(self.source.y, len(array)))
        for step, form in zip(self.steps, self.forms, strict=True):
            data = transformed(step, data, form, values=values)
        return data.x if data.x.dtype.kind not in "US" else _as_texts(data.x)


class ServingPipeline:
    """The preprocessing, or the postprocessing, of one version."""

    def __init__(self, parts: Sequence[TensorSteps], *, before: bool) -> None:
        """``before`` says whether it stands before the model: then a step that refuses its data blames the request."""
        self._parts = parts
        self._before = before

    def __call__(self, tensors: dict[str, Array], values: dict[str, Any]) -> dict[str, Array]:
        """Return the tensors transformed; raise `InvalidInference` for data that a step refuses, else `ModelFailed`."""
        made = dict(tensors)
        try:
            for part in self._parts:
                if part.tensor in made:
                    made[part.tensor] = part(made[part.tensor], values)
        except InferenceError:
            raise
        except LocexError as error:
            raise self._told(error) from error
        return made

    def _told(self, error: LocexError) -> InferenceError:
        refused = not isinstance(error, StepFailed) or isinstance(error.__cause__, ValueError)
        kind = InvalidInference if self._before and refused else ModelFailed
        return kind(error.message, remedy=error.remedy)


def steps_on(tensor: TensorInfo, steps: Sequence[Step], source: DataFormat) -> TensorSteps:
    """Return the steps on one tensor; raise `FormatMismatch` where one cannot take what the one before gives."""
    trail = walk(source, steps)
    return TensorSteps(tensor.name, steps, source, [form for _, form in trail[1:]])


def format_of(info: TensorInfo) -> SideFormat:
    """Return the format of a model's tensor; free sizes are -1."""
    dtype = None if info.datatype == BYTES else DTYPES[info.datatype].name
    return SideFormat(data_types={_KIND: TensorFormat(size=[*info.shape[1:]], dtype=dtype)})


def info_of(name: str, form: SideFormat, batch: int, dtype: np.dtype[Any] | None = None) -> TensorInfo:
    """Return how callers see a tensor; ``dtype`` counts where the format tells no type, else float32."""
    (tensor,) = form.data_types.values()
    known = np.dtype(tensor.dtype) if tensor.dtype else dtype or np.dtype(np.float32)
    datatype = next((name for name, one in DTYPES.items() if one == known), BYTES)
    return TensorInfo(name, datatype, (batch, *tensor.size))


def _targets(side: SideFormat, examples: int) -> Array:
    tensor = next(iter(side.data_types.values()), None)
    if tensor is None or len(side.data_types) > 1:
        return np.zeros(examples, np.int64)
    return np.zeros((examples, *(max(size, 1) for size in tensor.size)), tensor.dtype or np.int64)


def _as_texts(array: Array) -> Array:
    texts = np.empty(array.size, DTYPES[BYTES])
    texts[:] = [as_bytes(text) for text in array.ravel().tolist()]
    return texts.reshape(array.shape)
