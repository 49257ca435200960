"""The names that users write for losses, metrics and export formats; this module imports no Keras."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator


def _plain(name: Any) -> Any:
    """Return the plain spelling of a class's name, too: ``CategoricalCrossentropy``, ``BCEWithLogitsLoss``, ``MSE``."""
    if not isinstance(name, str):
        return name
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    return words.lower().removesuffix("_loss")


def _loss(name: Any) -> Any:
    """Return the plain spelling; refuse the one loss of PyTorch that Keras takes in another form."""
    plain = _plain(name)
    if plain == "poisson_nll":
        raise ValueError(
            "'poisson_nll' reads the logarithm of the expected number, for which Keras has no loss: let the model end "
            "in the activation exponential, and choose 'poisson'"
        )
    return plain


LossName = Annotated[
    Literal[
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
        "cross_entropy",
        "crossentropy",
        "nll",
        "categorical_focal_crossentropy",
        "categorical_hinge",
        "kl_divergence",
        "kl_div",
        "kldiv",
        "kld",
        "binary_crossentropy",
        "binary_cross_entropy",
        "bce",
        "bce_with_logits",
        "binary_focal_crossentropy",
        "hinge",
        "squared_hinge",
        "mean_squared_error",
        "mse",
        "mean_absolute_error",
        "mae",
        "l1",
        "mean_absolute_percentage_error",
        "mape",
        "mean_squared_logarithmic_error",
        "msle",
        "huber",
        "smooth_l1",
        "logcosh",
        "log_cosh",
        "cosine_similarity",
        "poisson",
    ],
    BeforeValidator(_loss),
]
"""Keras' and PyTorch's users call the same losses by different names."""

MetricName = Annotated[
    Literal[
        "accuracy",
        "loss",
        "acc",
        "binary_accuracy",
        "categorical_accuracy",
        "sparse_categorical_accuracy",
        "precision",
        "recall",
        "f1",
        "f1_score",
        "auc",
        "auroc",
        "top_k_categorical_accuracy",
        "sparse_top_k_categorical_accuracy",
        "top_5_accuracy",
        "mean_absolute_error",
        "mae",
        "mean_squared_error",
        "mse",
        "root_mean_squared_error",
        "rmse",
    ],
    BeforeValidator(_plain),
]
"""``loss`` is always told."""

FormatName = Literal["safetensors", "keras", "saved_model", "onnx", "tflite"]
"""``safetensors`` stands for the artefact that the builder loads again, which is always written."""

Measure = Literal["loss", "accuracy", "precision", "recall", "f1", "auc", "top_k", "mae", "mse", "rmse"]

MEASURES: dict[str, Measure] = {
    "loss": "loss",
    "accuracy": "accuracy",
    "acc": "accuracy",
    "binary_accuracy": "accuracy",
    "categorical_accuracy": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
    "f1_score": "f1",
    "auc": "auc",
    "auroc": "auc",
    "top_k_categorical_accuracy": "top_k",
    "sparse_top_k_categorical_accuracy": "top_k",
    "top_5_accuracy": "top_k",
    "mean_absolute_error": "mae",
    "mae": "mae",
    "mean_squared_error": "mse",
    "mse": "mse",
    "root_mean_squared_error": "rmse",
    "rmse": "rmse",
}
"""What each name of a metric measures."""

LESS_IS_BETTER: frozenset[Measure] = frozenset({"loss", "mae", "mse", "rmse"})
