"""Losses by the names that PyTorch's and Keras' users write. Models give logits."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from locex.errors import FormatMismatch, InvalidConfiguration
from locex_torch_builder.names import LossName


class Loss(Protocol):
    """A loss, and how it reads targets and outputs. ``sizes`` are a model's output without the axis of examples."""

    classes: str | None
    """What the outputs tell apart: "multiclass", "binary" (each unit on its own), or None (regression)."""

    def targets(self, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return ``y`` as the loss takes it; raise `FormatMismatch` where it does not fit the output."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the predicted class of each example, or 0 and 1 for each unit."""

    def labels(self, targets: Tensor) -> Tensor:
        """Return the true classes in the form of `predictions`."""


class CrossEntropy:
    """Softmax cross-entropy; targets are class indices, one-hot rows or class probabilities."""

    classes: str | None = "multiclass"

    def targets(self, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return indices; probabilities that are not one-hot stay as they are."""
        if not sizes or sizes[0] == 1:
            message = "cross-entropy needs an output unit for each class, the model has one unit"
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

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over examples."""
        return functional.cross_entropy(outputs, targets)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the class with the largest logit."""
        return outputs.argmax(1)

    def labels(self, targets: Tensor) -> Tensor:
        """Return indices, of probabilities the likeliest."""
        return targets.argmax(1) if targets.is_floating_point() else targets


class MeanSquaredError:
    """Mean squared error."""

    classes: str | None = None

    def targets(self, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return targets of the output's sizes; (n,) fits one unit."""
        return _elementwise(y, sizes)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over all elements."""
        return functional.mse_loss(outputs, targets)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the values."""
        return outputs

    def labels(self, targets: Tensor) -> Tensor:
        """Return the values."""
        return targets


class BinaryCrossEntropy:
    """Sigmoid cross-entropy of each unit, from logits."""

    classes: str | None = "binary"

    def targets(self, y: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return 0 and 1 in the output's sizes; one-hot rows of two classes fit one unit."""
        if y.shape[1:] == (2,) and sizes in {(), (1,)}:
            y = y[:, 1]
        targets = _elementwise(y, sizes)
        if targets.numel() and (targets.min() < 0 or targets.max() > 1):
            raise FormatMismatch(
                "binary cross-entropy needs targets from 0 to 1", remedy="choose another loss or encode the targets"
            )
        return targets

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over all elements."""
        return functional.binary_cross_entropy_with_logits(outputs, targets)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return 1 where the probability is over one half."""
        return (outputs > 0).long()

    def labels(self, targets: Tensor) -> Tensor:
        """Return 1 where the target is over one half."""
        return (targets > 0.5).long()  # noqa: PLR2004 -- one half


LOSSES: dict[LossName, type[Loss]] = {
    "categorical_crossentropy": CrossEntropy,
    "sparse_categorical_crossentropy": CrossEntropy,
    "cross_entropy": CrossEntropy,
    "crossentropy": CrossEntropy,
    "mse": MeanSquaredError,
    "mean_squared_error": MeanSquaredError,
    "binary_crossentropy": BinaryCrossEntropy,
    "bce": BinaryCrossEntropy,
}


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
        remedy="add a transformation of the targets, or choose a loss or a model that fits",
    )
