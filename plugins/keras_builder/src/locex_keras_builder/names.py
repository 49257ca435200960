"""The names that users write for losses, metrics and export formats; this module imports no Keras."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from locex.schemas.objectives import CommonLoss, plain_name


def _loss(name: Any) -> Any:
    """Return the plain spelling; refuse the one loss of PyTorch that Keras takes in another form."""
    plain = plain_name(name)
    if plain == "poisson_nll":
        raise ValueError(
            "'poisson_nll' reads the logarithm of the expected number, for which Keras has no loss: let the model end "
            "in the activation exponential, and choose 'poisson'"
        )
    return plain


LossName = Annotated[
    # the names of Keras' one cross-entropy of classes come first, in CommonLoss they count no second time
    Literal[
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
        "cross_entropy",
        "crossentropy",
        "nll",
        CommonLoss,
    ],
    BeforeValidator(_loss),
]

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
