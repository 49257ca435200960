"""How losses and metrics read targets and a model's outputs: as classes, as units of yes or no, as values.

``sizes`` are those of a model's output without the axis of examples.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from locex.errors import FormatMismatch, InvalidConfiguration

Kind: TypeAlias = Literal["multiclass", "binary", "regression"]


class Reading(Protocol):
    """What outputs and targets mean."""

    kind: Kind
    """Whether outputs tell classes apart, say yes or no unit by unit, or are values."""

    def targets(self, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return ``y`` as the loss takes it; raise `FormatMismatch` where it does not fit the output."""

    def expected(self, targets: Tensor, outputs: Tensor) -> Tensor:
        """Return the targets in the form of `predicted`."""

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return probabilities, or values."""

    def labels(self, targets: Tensor) -> Tensor:
        """Return the true classes in the form of `predictions`."""

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the predicted class of each example, or 0 and 1 for each unit."""


class Classes:
    """One logit for each class; targets are class indices, one-hot rows or rows of probabilities."""

    kind: Kind = "multiclass"

    def targets(self, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return indices; probabilities that are not one-hot stay as they are."""
        if not sizes or sizes[0] == 1:
            message = "this loss needs an output unit for each class, the model has one unit"
            raise InvalidConfiguration(
                message,
                remedy="choose binary_crossentropy or mse, or a model with more output units",
                errors=[{"path": "/eval_func", "message": message}],
            )
        if y.shape[1:] == sizes:
            index = y.argmax(1)
            one_hot = functional.one_hot(index, sizes[0]).movedim(-1, 1) == y
            return index if bool(one_hot.all()) else y.float()
        if y.shape[1:] == (1, *sizes[1:]):
            y = y.squeeze(1)
        if y.shape[1:] != sizes[1:]:
            raise _mismatch(y, sizes)
        return _indices(y, sizes[0])

    def expected(self, targets: Tensor, outputs: Tensor) -> Tensor:
        """Return rows of probabilities."""
        return class_rows(targets, outputs)

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return probabilities; logarithms of probabilities are logits, too."""
        return outputs.softmax(1)

    def labels(self, targets: Tensor) -> Tensor:
        """Return indices, of probabilities the likeliest."""
        return targets.argmax(1) if targets.is_floating_point() else targets

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the class with the largest logit."""
        return outputs.argmax(1)


class Units:
    """Each output unit is the logit of a yes; two classes fit one unit."""

    kind: Kind = "binary"

    def targets(self, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return 0 and 1 in the output's sizes; one-hot rows of two classes fit one unit."""
        if y.shape[1:] == (2,) and sizes in {(), (1,)}:
            y = y[:, 1]
        targets = _elementwise(y, sizes)
        if targets.numel() and (targets.min() < 0 or targets.max() > 1):
            raise FormatMismatch(
                "this loss needs targets from 0 to 1", remedy="choose another loss or encode the targets"
            )
        return targets

    def expected(self, targets: Tensor, outputs: Tensor) -> Tensor:  # noqa: ARG002 -- the Protocol's
        """Return the targets, which are probabilities."""
        return targets

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return probabilities."""
        return outputs.sigmoid()

    def labels(self, targets: Tensor) -> Tensor:
        """Return 1 where the target is over one half."""
        return (targets > 0.5).long()  # noqa: PLR2004 -- one half

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return 1 where the probability is over one half."""
        return (outputs > 0).long()


class Margins(Units):
    """Each output unit is a margin around 0; targets of 0 and 1, or of -1 and 1, become -1 and 1."""

    def targets(self, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return -1 and 1 in the output's sizes."""
        signed = bool((y == -1).any())
        targets = _elementwise(y, sizes) if signed else 2 * super().targets(y, sizes) - 1
        if bool((targets.abs() != 1).any()):
            raise FormatMismatch(
                "this loss needs targets of 0 and 1, or of -1 and 1",
                remedy="choose another loss or encode the targets",
            )
        return targets

    def expected(self, targets: Tensor, outputs: Tensor) -> Tensor:  # noqa: ARG002 -- the Protocol's
        """Return 0 and 1."""
        return (targets + 1) / 2

    def labels(self, targets: Tensor) -> Tensor:
        """Return 0 and 1."""
        return (targets > 0).long()


class Values:
    """Outputs and targets are numbers."""

    kind: Kind = "regression"

    def targets(self, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return targets of the output's sizes; (n,) fits one unit."""
        return _elementwise(y, sizes)

    def expected(self, targets: Tensor, outputs: Tensor) -> Tensor:  # noqa: ARG002 -- the Protocol's
        """Return the values."""
        return targets

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return the values."""
        return outputs

    def labels(self, targets: Tensor) -> Tensor:
        """Return the values."""
        return targets

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the values."""
        return outputs


class LogValues(Values):
    """Outputs are the logarithms of numbers."""

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return the numbers."""
        return outputs.exp()


def class_rows(targets: Tensor, outputs: Tensor) -> Tensor:
    """Return class indices as one-hot rows in the form of the outputs; rows stay as they are."""
    if targets.is_floating_point():
        return targets
    return functional.one_hot(targets, outputs.shape[1]).movedim(-1, 1).to(outputs.dtype)


def _indices(y: Tensor, classes: int) -> Tensor:
    index = y.long()
    if len(y) and (index.min() < 0 or index.max() >= classes or bool((index != y).any())):
        raise FormatMismatch(
            f"targets are not class indices from 0 to {classes - 1}, which the model's {classes} output units need",
            remedy="check the data's classes against the model's num_classes",
        )
    return index


def _elementwise(y: Tensor, sizes: tuple[int, ...]) -> Tensor:
    if y.shape[1:] in {(), (1,)} and sizes in {(), (1,)}:
        y = y.reshape(len(y), *sizes)
    if y.shape[1:] != sizes:
        raise _mismatch(y, sizes)
    return y.to(torch.float32)


def _mismatch(y: Tensor, sizes: tuple[int, ...]) -> FormatMismatch:
    return FormatMismatch(
        f"targets of size {list(y.shape[1:])} do not fit the model's output of size {list(sizes)}",
        remedy="add a transformation of the targets (class indices to one-hot rows, say), or choose a loss or a model "
        "that fits; categorical_crossentropy takes both indices and rows",
    )
