"""A training's pipeline as it is kept with the model: the steps, and what they learnt, as JSON.

Numbers stand as little-endian bytes in base64, so that serving computes with the very bits of the training.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, Field

from locex.api import Array, FittedTransform, SavedTransform
from locex.errors import LocexError
from locex.pipelines.steps import Skipped, Step, contained
from locex.schemas.data_format import DataFormat

MAX_BYTES = 2**20
"""Bytes of all that the steps of one pipeline learnt: metadata travel in one piece, and stores bound a record."""
_KINDS = "biuf"


class UnsavedPipeline(LocexError):
    """A pipeline that cannot be kept, or whose kept form is damaged."""

    code: ClassVar[str] = "pipeline-unsaved"


class SavedArray(BaseModel):
    """An array of numbers."""

    dtype: str = Field(description="NumPy name of the type, little-endian.")
    shape: list[int] = Field(description="Sizes of the axes.")
    data: str = Field(description="The bytes, row by row, in base64.")

    @classmethod
    def of(cls, array: Array) -> SavedArray:
        """Keep an array of numbers."""
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        return cls(dtype=plain.dtype.str, shape=[*array.shape], data=base64.b64encode(plain.tobytes()).decode())

    def array(self) -> Array:
        """Return the array; raise `ValueError` where type, shape and bytes do not go together."""
        try:
            dtype, content = np.dtype(self.dtype), base64.b64decode(self.data, validate=True)
        except (TypeError, binascii.Error) as error:
            raise ValueError(f"a kept array is damaged: {error}") from None
        expected = math.prod(self.shape) * dtype.itemsize
        if dtype.kind not in _KINDS or min(self.shape, default=0) < 0 or len(content) != expected:
            raise ValueError(f"a kept array of {self.dtype} and shape {self.shape} has {len(content)} bytes")
        return np.frombuffer(content, dtype).reshape(self.shape)


class SavedStep(BaseModel):
    """One step: its plugin, its fields, and what it learnt."""

    id: str = Field(description="A name of the group locex.transform.")
    parameters: dict[str, Any] = Field(default={}, description="The step's valid fields.")
    state: dict[str, SavedArray] | None = Field(default=None, description="What it learnt; absent: it learns nothing.")


class SavedPipeline(BaseModel):
    """The steps before a model, from the format of the source."""

    format: DataFormat = Field(description="What the first step takes.")
    steps: list[SavedStep] = Field(description="The steps in their order.")

    @classmethod
    def of(cls, steps: Sequence[Step], source: DataFormat) -> SavedPipeline:
        """Keep a pipeline whose steps have learnt; steps that draw are left out, as they are for test data.

        Raise `UnsavedPipeline` for a step that learns and does not give its state, and for too much of it.
        """
        kept = [
            SavedStep(id=step.name, parameters=dict(step.fields), state=_state_of(step))
            for step in steps
            if not isinstance(step.transform, Skipped)
        ]
        size = sum(len(array.data) for step in kept for array in (step.state or {}).values())
        if size > MAX_BYTES:
            raise UnsavedPipeline(
                f"its steps learnt {size} bytes, kept with a model are up to {MAX_BYTES}",
                remedy="let the steps learn per channel (axis), not per position",
            )
        return cls(format=source, steps=kept)


def restore(step: Step, saved: SavedStep) -> None:
    """Give a new step what it learnt in the training; raise `UnsavedPipeline` or `StepFailed`."""
    if not isinstance(step.transform, FittedTransform):
        return
    if saved.state is None or not isinstance(step.transform, SavedTransform):
        raise _without_state(step)
    with contained(step.label, "was restored"):
        step.transform.restore({name: array.array() for name, array in saved.state.items()})
    step.fitted = True


def knowledge_of(steps: Sequence[Step]) -> list[dict[str, Any] | None]:
    """Return what each step learnt, as JSON; None for one that learns nothing, or does not tell it."""
    told = (step if isinstance(step.transform, SavedTransform) else None for step in steps)
    states = [_state_of(step) if step else None for step in told]
    return [
        None if state is None else {name: array.model_dump(mode="json") for name, array in state.items()}
        for state in states
    ]


def recall(steps: Sequence[Step], knowledge: Sequence[Mapping[str, Any] | None]) -> None:
    """Give steps what `knowledge_of` them returned; raise `StepFailed` where one does not take it."""
    for step, state in zip(steps, knowledge, strict=True):
        if state is not None:
            kept = {name: SavedArray.model_validate(array) for name, array in state.items()}
            restore(step, SavedStep(id=step.name, state=kept))


def _state_of(step: Step) -> dict[str, SavedArray] | None:
    if not isinstance(step.transform, FittedTransform):
        return None
    if not isinstance(step.transform, SavedTransform):
        raise _without_state(step)
    with contained(step.label, "gave its state"):
        state: Mapping[str, Array] = step.transform.state()
    for name, array in state.items():
        if array.dtype.kind not in _KINDS:
            raise UnsavedPipeline(f"{step.label} learnt {name} of type {array.dtype}, which is no number")
    return {name: SavedArray.of(array) for name, array in state.items()}


def _without_state(step: Step) -> UnsavedPipeline:
    return UnsavedPipeline(
        f"{step.label} learns from training data and does not keep what it learnt",
        remedy="let the step implement locex.api.SavedTransform, or use one that does",
    )
