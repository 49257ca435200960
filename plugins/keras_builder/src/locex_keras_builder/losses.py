"""Losses by the names that Keras' and PyTorch's users write; each is the loss object of the session's own Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from locex.errors import InvalidConfiguration
from locex_keras_builder import targets
from locex_keras_builder.kerases import Keras
from locex_keras_builder.names import LossName
from locex_keras_builder.outputs import activation_of

if TYPE_CHECKING:
    from locex.api import Array

Task = Literal["multiclass", "binary", "regression"]

_CLASSES: dict[LossName, str] = {
    **dict.fromkeys(
        ("categorical_crossentropy", "sparse_categorical_crossentropy", "cross_entropy", "crossentropy", "nll"),
        "CategoricalCrossentropy",
    ),
    "categorical_focal_crossentropy": "CategoricalFocalCrossentropy",
    "categorical_hinge": "CategoricalHinge",
    **dict.fromkeys(("kl_divergence", "kl_div", "kldiv", "kld"), "KLDivergence"),
    **dict.fromkeys(("binary_crossentropy", "binary_cross_entropy", "bce", "bce_with_logits"), "BinaryCrossentropy"),
    "binary_focal_crossentropy": "BinaryFocalCrossentropy",
    "hinge": "Hinge",
    "squared_hinge": "SquaredHinge",
    **dict.fromkeys(("mean_squared_error", "mse"), "MeanSquaredError"),
    **dict.fromkeys(("mean_absolute_error", "mae", "l1"), "MeanAbsoluteError"),
    **dict.fromkeys(("mean_absolute_percentage_error", "mape"), "MeanAbsolutePercentageError"),
    **dict.fromkeys(("mean_squared_logarithmic_error", "msle"), "MeanSquaredLogarithmicError"),
    **dict.fromkeys(("huber", "smooth_l1"), "Huber"),
    **dict.fromkeys(("logcosh", "log_cosh"), "LogCosh"),
    "cosine_similarity": "CosineSimilarity",
    "poisson": "Poisson",
}
_OF_CLASSES = {"CategoricalCrossentropy", "CategoricalFocalCrossentropy", "CategoricalHinge", "KLDivergence"}
_OF_UNITS = {"BinaryCrossentropy", "BinaryFocalCrossentropy"}
_OF_MARGINS = {"Hinge", "SquaredHinge"}


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss for ``compile()``, and how it reads targets and outputs.

    ``function`` is a ``keras.losses.Loss``. ``task`` is what the outputs tell apart: one class of many, 0 or 1 in
    each unit, or numbers. ``scores`` says that outputs are logits or margins, which decide at 0, not probabilities.
    ``sizes`` are the output's without the axis of examples. ``targets(y)`` returns an array as ``function`` and
    metrics take it (int32 class indices if ``indices``, else float32 of ``sizes``), and raises `FormatMismatch` where
    ``y`` does not fit the model's output.
    """

    function: Any
    task: Task
    scores: bool
    sizes: tuple[int, ...]
    targets: Callable[[Array], Array]
    indices: bool = False


def loss_named(name: LossName, keras: Keras, model: Any, outputs: Array, y: Array) -> Loss:
    """Return the loss for a model whose ``outputs`` (n, …) for a few inputs, and training targets ``y``, are given.

    Whether outputs are logits is read from the activation that the model ends in (linear: yes, else: no), and from
    ``outputs`` where the model does not tell it. ``y`` decides between class indices and rows of probabilities.
    Raise `InvalidConfiguration` where the loss does not go with the model's output.
    """
    activation, sizes = activation_of(model), tuple(outputs.shape[1:])
    logits = activation in {"linear", "log_softmax"} or (activation is None and not _probabilities(outputs))
    kind = _CLASSES[name]
    if kind in _OF_CLASSES:
        _require_classes(name, sizes)
    if kind == "KLDivergence":
        _require_probabilities(name, logits=logits)
    if kind == "CategoricalCrossentropy" and y.shape[1:] != sizes:
        function = keras.module.losses.SparseCategoricalCrossentropy(from_logits=logits)
        return Loss(function, "multiclass", logits, sizes, partial(targets.class_indices, sizes=sizes), indices=True)
    options = {"from_logits": logits} if kind.endswith("entropy") else {}
    function = getattr(keras.module.losses, kind)(**options)
    if kind in _OF_CLASSES or (activation == "softmax" and _several(sizes)):
        return Loss(function, "multiclass", logits, sizes, partial(targets.class_rows, sizes=sizes))
    if kind in _OF_UNITS:
        return Loss(function, "binary", logits, sizes, partial(targets.units, sizes=sizes))
    if kind in _OF_MARGINS:
        return Loss(function, "binary", activation != "sigmoid", sizes, partial(targets.signs, sizes=sizes))
    task: Task = "binary" if activation == "sigmoid" else "regression"
    return Loss(function, task, False, sizes, partial(targets.numbers, sizes=sizes))


def _several(sizes: tuple[int, ...]) -> bool:
    return bool(sizes) and sizes[-1] > 1


def _probabilities(outputs: Array) -> bool:
    # zeros alone are logits of an output layer that begins at zero
    return bool(np.all((outputs >= 0) & (outputs <= 1)) and np.any(outputs))


def _require_classes(name: LossName, sizes: tuple[int, ...]) -> None:
    if not _several(sizes):
        raise _invalid(
            f"{name} needs an output unit for each class, the model has one unit",
            "choose binary_crossentropy or mse, or a model with more output units",
        )


def _require_probabilities(name: LossName, *, logits: bool) -> None:
    if logits:
        raise _invalid(
            f"{name} needs probabilities, the model gives logits",
            "let the model end in softmax, or choose categorical_crossentropy",
        )


def _invalid(message: str, remedy: str) -> InvalidConfiguration:
    return InvalidConfiguration(message, remedy=remedy, errors=[{"path": "/eval_func", "message": message}])
