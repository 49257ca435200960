"""Running totals of loss and metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from locex_keras_builder.kerases import import_tensorflow

if TYPE_CHECKING:
    from locex.api import Array

tf = import_tensorflow()


class Tally:
    """Loss and metrics over groups of batches; made once, reset for every epoch."""

    def __init__(self, metrics: Sequence[Any]) -> None:
        """Take metrics of one Keras."""
        self._metrics = list(metrics)
        self._update: Any = None
        self.reset()

    def reset(self) -> None:
        """Start at nothing."""
        self.examples = 0
        self._total = 0.0
        for metric in self._metrics:
            metric.reset_state()

    def add(self, losses: Array, outputs: Any, y: Array) -> None:
        """Count a group: losses (batches,), targets and outputs (batches, examples, …)."""
        batches, size = y.shape[:2]
        self.examples += batches * size
        self._total += float(losses.sum(dtype="float64")) * size
        if self._metrics:
            if self._update is None:
                self._update = self._traced(y, outputs)
            self._update(y, outputs)

    def _traced(self, y: Array, outputs: Any) -> Any:
        def update(y: Any, outputs: Any) -> None:
            for metric in self._metrics:
                metric.update_state(*(tf.reshape(one, tf.concat([[-1], tf.shape(one)[2:]], 0)) for one in (y, outputs)))

        signature = [tf.TensorSpec((None, None, *one.shape[2:]), one.dtype) for one in (y, outputs)]
        return tf.function(update, input_signature=signature, autograph=False)

    @property
    def loss(self) -> float:
        """The mean loss per example."""
        return self._total / self.examples if self.examples else math.nan

    def metrics(self) -> dict[str, float]:
        """Return each metric by its name."""
        return {metric.name: float(metric.result()) for metric in self._metrics}
