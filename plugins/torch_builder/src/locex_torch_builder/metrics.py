"""Metrics, and their running totals over batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from locex.errors import InvalidConfiguration
from locex_torch_builder.losses import Loss
from locex_torch_builder.names import MetricName

Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Takes predicted and true classes of all examples."""


def metrics_named(names: Sequence[MetricName], loss: Loss) -> dict[str, Metric]:
    """Return the metrics beside the loss; raise `InvalidConfiguration` for one that the loss does not allow."""
    if "accuracy" not in names:
        return {}
    if loss.classes is None:
        raise _invalid("accuracy needs a loss that tells classes apart")
    return {"accuracy": _accuracy(loss.classes)}


class Tally:
    """Loss and metrics over batches. Everything stays a tensor until the end, so that batches never wait."""

    def __init__(self, loss: Loss, metrics: Mapping[str, Metric]) -> None:
        """Start at nothing."""
        self._loss = loss
        self._metrics = metrics
        self._total = torch.zeros((), dtype=torch.float64)
        self._examples = 0
        self._predictions: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch with its mean loss."""
        examples = len(targets)
        self._examples += examples
        self._total.add_(loss.detach(), alpha=examples)
        if self._metrics:
            self._predictions.append(self._loss.predictions(outputs.detach()))
            self._labels.append(self._loss.labels(targets))

    @property
    def examples(self) -> int:
        """Examples counted."""
        return self._examples

    def loss(self) -> float:
        """Return the mean loss per example."""
        return float(self._total) / self._examples if self._examples else math.nan

    def metrics(self) -> dict[str, float]:
        """Return each metric."""
        if not self._metrics:
            return {}
        predictions, labels = torch.cat(self._predictions), torch.cat(self._labels)
        return {name: float(metric(predictions, labels)) for name, metric in self._metrics.items()}


def _accuracy(classes: str) -> Metric:
    # imported here: torchmetrics takes as long to import as torch, and only a job with metrics needs it
    from torchmetrics.functional import classification

    if classes == "binary":
        return lambda predictions, labels: classification.binary_accuracy(predictions, labels, validate_args=False)
    return lambda predictions, labels: classification.multiclass_accuracy(
        predictions, labels, average="micro", validate_args=False
    )


def _invalid(message: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        message, remedy="choose known metrics", errors=[{"path": "/eval_metrics", "message": message}]
    )
