"""What a node sends is checked before it is aggregated, and what comes out before it becomes the global model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from locex.api import Contribution, Evaluation

if TYPE_CHECKING:
    from locex.api import Array


def fault_of(contribution: Contribution, current: Sequence[Array]) -> str:
    """Return what is wrong with a contribution, or an empty string."""
    if contribution.examples < 0:
        return f"it names {contribution.examples} examples"
    if len(contribution.parameters) != len(current):
        return f"it has {len(contribution.parameters)} tensors, the model has {len(current)}"
    return _fault_of(contribution.parameters, current)


def cast(parameters: Sequence[Array], current: Sequence[Array]) -> tuple[list[Array], str]:
    """Return new global parameters in the types of the old ones, and what is wrong with them, if anything.

    Integer buffers (counters of batches) come back as floats; they are rounded.
    """
    if len(parameters) != len(current):
        return [], f"the aggregation returned {len(parameters)} tensors, the model has {len(current)}"
    with np.errstate(over="ignore", invalid="ignore"):
        typed = [_typed(np.asarray(new), old.dtype) for new, old in zip(parameters, current, strict=True)]
    return typed, _fault_of(parameters, current) or _fault_of(typed, current)


def usable(evaluation: Evaluation) -> bool:
    """Tell whether an evaluation counts: a node that withholds its loss sends NaN."""
    return math.isfinite(evaluation.loss) and evaluation.examples > 0


def _fault_of(parameters: Sequence[Array], current: Sequence[Array]) -> str:
    for index, (sent, known) in enumerate(zip(parameters, current, strict=True)):
        if sent.shape != known.shape:
            return f"tensor {index} has shape {list(sent.shape)}, the model's has {list(known.shape)}"
        if sent.dtype.kind not in "fiub":
            return f"tensor {index} has the type {sent.dtype}"
        if not np.isfinite(sent).all():
            return f"tensor {index} is not finite"
    return ""


def _typed(value: Array, dtype: np.dtype[np.generic]) -> Array:
    return np.asarray(np.rint(value) if dtype.kind in "iub" else value, dtype=dtype, order="C")
