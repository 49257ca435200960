"""The names that users write for losses, metrics and export formats; this module imports no torch."""

from __future__ import annotations

from typing import Literal

LossName = Literal[
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "cross_entropy",
    "crossentropy",
    "binary_crossentropy",
    "bce",
    "mean_squared_error",
    "mse",
]
"""Keras' and PyTorch's users call the same losses by different names."""

MetricName = Literal["accuracy", "loss"]
"""``loss`` is always told."""

FormatName = Literal["safetensors", "onnx"]
"""``safetensors``, in the artefact that the builder loads again, is always written."""
