"""Metrics by name, each a streaming metric of torchmetrics, and their running totals over batches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from locex.errors import InvalidConfiguration
from locex.schemas.objectives import MetricName
from locex_torch_builder.targets import Reading

if TYPE_CHECKING:
    # as slow to import as torch: only a job with metrics imports it
    from torchmetrics import Metric

Pair: TypeAlias = tuple[Tensor, Tensor]

THRESHOLDS = 200
"""The area under the curve is that over so many thresholds from 0 to 1, so that no outputs need be kept."""
TOP = 5
BUFFERED = 2**20
"""Outputs are kept up to so many numbers and then handed on at once: a call for each small batch would be slow."""

_SAME: Mapping[MetricName, str] = {
    "acc": "accuracy",
    "f1_score": "f1",
    "auroc": "auc",
    "sparse_categorical_accuracy": "categorical_accuracy",
    "top_k_categorical_accuracy": "top",
    "sparse_top_k_categorical_accuracy": "top",
    "top_5_accuracy": "top",
    "mean_absolute_error": "mae",
    "mean_squared_error": "mse",
    "root_mean_squared_error": "rmse",
}
_SCORES = {"precision": "Precision", "recall": "Recall", "f1": "F1Score"}
_CLASSES = frozenset({"multiclass", "binary"})
_NEEDS = {
    **dict.fromkeys(("accuracy", "precision", "recall", "f1", "auc"), _CLASSES),
    **dict.fromkeys(("categorical_accuracy", "top"), frozenset({"multiclass"})),
    "binary_accuracy": frozenset({"binary"}),
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric, and what it takes of outputs and targets."""

    metric: Metric
    pair: Callable[[Tensor, Tensor], Pair]


def require_fitting(names: Sequence[MetricName], reading: Reading) -> None:
    """Raise `InvalidConfiguration` for a metric that the loss gives no meaning to."""
    for name in names:
        kinds = _NEEDS.get(_SAME.get(name, name))
        if kinds and reading.kind not in kinds:
            message = f"{name} needs a {' or '.join(sorted(kinds))} loss, the job's is for {reading.kind}"
            raise InvalidConfiguration(
                message,
                remedy="choose metrics and a loss that go together: classes, yes or no, or values",
                errors=[{"path": "/eval_metrics", "message": message}],
            )


def measures(
    names: Sequence[MetricName], reading: Reading, sizes: tuple[int, ...], device: torch.device
) -> dict[str, Measure]:
    """Return the metrics beside the loss for a model whose output has the sizes (without the axis of examples)."""
    return {name: _measure(_SAME.get(name, name), reading, sizes, device) for name in names if name != "loss"}


def _measure(name: str, reading: Reading, sizes: tuple[int, ...], device: torch.device) -> Measure:
    from torchmetrics import classification, regression

    def classes(outputs: Tensor, targets: Tensor) -> Pair:
        return reading.predictions(outputs), reading.labels(targets)

    def probabilities(outputs: Tensor, targets: Tensor) -> Pair:
        return reading.predicted(outputs), reading.labels(targets)

    def values(outputs: Tensor, targets: Tensor) -> Pair:
        return reading.predicted(outputs).double(), reading.expected(targets, outputs).double()

    form, fields = _form(reading, sizes)
    metric: Metric
    if name in {"mse", "rmse"}:
        metric, pair = regression.MeanSquaredError(squared=name == "mse").set_dtype(torch.float64), values
    elif name == "mae":
        metric, pair = regression.MeanAbsoluteError().set_dtype(torch.float64), values
    elif name == "auc":
        metric, pair = getattr(classification, f"{form}AUROC")(thresholds=THRESHOLDS, **fields), probabilities
    elif name == "top":
        top = min(TOP, sizes[0])
        metric, pair = classification.MulticlassAccuracy(top_k=top, **fields | {"average": "micro"}), probabilities
    elif name in _SCORES:
        metric, pair = getattr(classification, f"{form}{_SCORES[name]}")(**fields), classes
    elif reading.kind == "multiclass":
        metric, pair = classification.MulticlassAccuracy(**fields | {"average": "micro"}), classes
    else:
        metric, pair = classification.BinaryAccuracy(validate_args=False), classes
    return Measure(metric.to(device), pair)


def _form(reading: Reading, sizes: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
    """Return which of torchmetrics' kinds of classification it is, and the fields of that kind."""
    if reading.kind == "multiclass":
        return "Multiclass", {"num_classes": sizes[0], "average": "macro", "validate_args": False}
    if reading.kind == "binary" and sizes and sizes[0] > 1:
        return "Multilabel", {"num_labels": sizes[0], "average": "macro", "validate_args": False}
    return "Binary", {"validate_args": False}


class Tally:
    """Loss and metrics over batches. Everything stays a tensor until the end, so that batches never wait."""

    def __init__(self, measures: Mapping[str, Measure], device: torch.device) -> None:
        """Start at nothing."""
        self._measures = measures
        for measure in measures.values():
            measure.metric.reset()
        self._total = torch.zeros((), dtype=torch.float64, device=device)
        self.examples = 0
        """Examples counted."""
        self._kept: list[Pair] = []
        self._numbers = 0

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch with its mean loss."""
        examples = len(targets)
        self.examples += examples
        self._total.add_(loss.detach(), alpha=examples)
        if self._measures:
            if self._kept and self._kept[-1][1].dtype != targets.dtype:  # indices, then mixed rows
                self._hand_on()
            self._kept.append((outputs.detach(), targets))
            self._numbers += outputs.numel()
            if self._numbers >= BUFFERED:
                self._hand_on()

    def _hand_on(self) -> None:
        outputs, targets = (torch.cat(part) for part in zip(*self._kept, strict=True))
        for measure in self._measures.values():
            measure.metric.update(*measure.pair(outputs, targets))
        self._kept, self._numbers = [], 0

    def loss(self) -> float:
        """Return the mean loss per example."""
        return float(self._total) / self.examples if self.examples else math.nan

    def metrics(self) -> dict[str, float]:
        """Return each metric."""
        with warnings.catch_warnings():  # of classes without examples
            warnings.simplefilter("ignore", UserWarning)
            if self._kept:
                self._hand_on()
            return {name: float(measure.metric.compute()) for name, measure in self._measures.items()}
