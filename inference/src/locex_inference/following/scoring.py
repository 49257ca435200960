"""How good answers are, against the targets of the local test split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from locex_inference.following.verdict import Score

if TYPE_CHECKING:
    from locex.api import Array


class Scorer:
    """Takes batches of answers and targets.

    Targets of classes, as indices or one-hot, count the right answers: accuracy. All others are numbers: mean squared
    error. An output of one unit for the classes 0 and 1 is cut at 0.5, or at 0 where it is a logit.
    """

    def __init__(self) -> None:
        self._answers: list[Array] = []
        self._targets: list[Array] = []

    def take(self, answers: Array, targets: Array) -> None:
        """Take a batch; the first axis is that of examples."""
        if len(answers) == len(targets):
            self._answers.append(answers)
            self._targets.append(targets)

    def score(self) -> Score | None:
        """Return the score of everything taken; None where there is nothing, or answers and targets do not compare."""
        if not self._answers:
            return None
        answers, targets = np.concatenate(self._answers), np.concatenate(self._targets)
        if answers.dtype.kind not in "fiub" or targets.dtype.kind not in "fiub":
            return None
        classes = _classes_of(targets, answers)
        if classes is not None:
            return Score(measure="accuracy", value=float(np.mean(_chosen(answers) == classes)))
        if answers.size != targets.size:
            return None
        error = answers.reshape(-1).astype(np.float64) - targets.reshape(-1).astype(np.float64)
        return Score(measure="mean squared error", value=float(np.mean(error**2)))


def _units(array: Array) -> int:
    return int(np.prod(array.shape[1:]))


def _classes_of(targets: Array, answers: Array) -> Array | None:
    """Return the class of each example, or None where the targets are numbers."""
    units = _units(answers)
    if _units(targets) == 1:
        flat = targets.reshape(-1)
        whole = targets.dtype.kind in "iub" or bool(np.all(flat == np.round(flat)))
        limit = max(units, 2)
        indices = (units > 1 or targets.dtype.kind in "iub") and whole and flat.min() >= 0 and flat.max() < limit
        return flat.astype(np.int64) if indices else None
    if targets.shape == answers.shape and np.isin(targets, (0, 1)).all() and (targets.sum(-1) == 1).all():
        chosen: Array = targets.reshape(len(targets), -1).argmax(1)
        return chosen
    return None


def _chosen(answers: Array) -> Array:
    if _units(answers) > 1:
        chosen: Array = answers.reshape(len(answers), -1).argmax(1)
        return chosen
    flat = answers.reshape(-1)
    cut = 0.5 if flat.size and flat.min() >= 0 and flat.max() <= 1 else 0.0
    return (flat > cut).astype(np.int64)
