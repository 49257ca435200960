"""Targets in the form that a loss takes; ``sizes`` are a model's output without the axis of examples, classes last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from locex.errors import FormatMismatch

if TYPE_CHECKING:
    from locex.api import Array


def class_indices(y: Array, sizes: tuple[int, ...]) -> Array:
    """Return int32 class indices, of one-hot rows the hot one."""
    if y.shape[1:] == sizes:
        index: Array = y.argmax(-1).astype(np.int32)
        if not np.array_equal(_one_hot(index, sizes[-1]), y):
            raise FormatMismatch(
                "training targets are class indices, these are probabilities", remedy="encode both in the same way"
            )
        return index
    if y.shape[1:] not in {sizes[:-1], (*sizes[:-1], 1)}:
        raise _mismatch(y, sizes)
    return _checked_indices(y.reshape(len(y), *sizes[:-1]), sizes[-1])


def class_rows(y: Array, sizes: tuple[int, ...]) -> Array:
    """Return float32 rows of class probabilities, of indices one-hot rows."""
    if y.shape[1:] == sizes:
        return y.astype(np.float32)
    return _one_hot(class_indices(y, sizes), sizes[-1])


def units(y: Array, sizes: tuple[int, ...]) -> Array:
    """Return float32 from 0 to 1 for each unit; one-hot rows of two classes fit one unit."""
    if y.shape[1:] == (2,) and sizes in {(), (1,)}:
        y = y[:, 1]
    y = numbers(y, sizes)
    if y.size and (y.min() < 0 or y.max() > 1):
        raise FormatMismatch(
            "binary cross-entropy needs targets from 0 to 1", remedy="choose another loss or encode the targets"
        )
    return y


def signs(y: Array, sizes: tuple[int, ...]) -> Array:
    """Return float32 0 and 1 for each unit of -1 and 1, or of 0 and 1; one-hot rows of two classes fit one unit."""
    if y.size and y.min() < 0:
        y = (y + 1) / 2
    if not np.all((y == 0) | (y == 1)):
        raise FormatMismatch(
            "hinge losses need targets -1 and 1, or 0 and 1", remedy="choose another loss or encode the targets"
        )
    return units(y, sizes)


def numbers(y: Array, sizes: tuple[int, ...]) -> Array:
    """Return float32 of the output's sizes; (n,) fits one unit."""
    if y.shape[1:] in {(), (1,)} and sizes in {(), (1,)}:
        y = y.reshape(len(y), *sizes)
    if y.shape[1:] != sizes:
        raise _mismatch(y, sizes)
    return y.astype(np.float32)


def _checked_indices(y: Array, classes: int) -> Array:
    index = y.astype(np.int32)
    if index.size and (index.min() < 0 or index.max() >= classes or bool((index != y).any())):
        raise FormatMismatch(
            f"targets are not class indices from 0 to {classes - 1}, which the model's {classes} output units need",
            remedy="check the data's classes against the model's num_classes",
        )
    return index


def _one_hot(index: Array, classes: int) -> Array:
    return np.eye(classes, dtype=np.float32)[index]


def _mismatch(y: Array, sizes: tuple[int, ...]) -> FormatMismatch:
    return FormatMismatch(
        f"targets of size {list(y.shape[1:])} do not fit the model's output of size {list(sizes)}",
        remedy="add a transformation of the targets, or choose a loss or a model that fits",
    )
