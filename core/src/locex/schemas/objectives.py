"""The names of losses and metrics, as users of every library write them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator


def plain_name(name: Any) -> Any:
    """Return the plain spelling of a class's name, too: ``CategoricalCrossentropy``, ``BCEWithLogitsLoss``, ``MSE``."""
    if not isinstance(name, str):
        return name
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    return words.lower().removesuffix("_loss")


CommonLoss = Literal[
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "cross_entropy",
    "crossentropy",
    "categorical_focal_crossentropy",
    "categorical_hinge",
    "nll",
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
]
"""Losses that every builder has. Users of different libraries call the same one by different names."""

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
    BeforeValidator(plain_name),
]
"""``loss`` is always told."""
