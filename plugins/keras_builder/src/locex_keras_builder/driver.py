"""Calls a callback as ``model.fit`` of its Keras would."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from locex.errors import InvalidConfiguration
from locex_keras_builder.target import PersistentCallback

if TYPE_CHECKING:
    from locex.api import Array

_OF_BATCHES = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


class CallbackDriver:
    """One callback, or none, over all rounds of a training."""

    def __init__(self, callback: Any, base: type, model: Any) -> None:
        """Give the callback its model; ``base`` is its Keras' ``Callback``."""
        self._callback, self._model = callback, model
        model.stop_training = False
        if callback is not None:
            callback.set_model(model)
            self.per_batch = any(getattr(type(callback), name) is not getattr(base, name) for name in _OF_BATCHES)
        else:
            self.per_batch = False

    @property
    def stopped(self) -> bool:
        """Whether the callback has ended the training, in this round or before."""
        return bool(self._model.stop_training or getattr(self._callback, "stopped", False))

    @property
    def validates(self) -> bool:
        """Whether the callback watches a metric of the test data."""
        return str(getattr(self._callback, "monitor", "")).startswith("val_")

    def require_blind(self) -> None:
        """Raise `InvalidConfiguration` for a callback that watches a metric: weights would tell of it."""
        monitor = getattr(self._callback, "monitor", None)
        if monitor:
            message = f"a callback that monitors {monitor} does not go with private gradients"
            raise InvalidConfiguration(
                message,
                remedy="choose a scheduler that follows a plan, e.g. learningratescheduler, or none",
                errors=[{"path": "/scheduler_config", "message": message}],
            )

    def begin(self, *, epochs: int, steps: int) -> None:
        """Tell that a round begins."""
        if self._callback is not None:
            self._callback.set_params({"epochs": epochs, "steps": steps, "verbose": 0})
            self._callback.on_train_begin({})

    def epoch(self, number: int) -> None:
        """Tell that an epoch begins."""
        if self._callback is not None:
            self._callback.on_epoch_begin(number, {})

    def step(self, number: int, train: Callable[[], tuple[Array, Any]]) -> tuple[Array, Any]:
        """Train a group of batches; a callback that is called for batches gets groups of one."""
        if not self.per_batch:
            return train()
        self._callback.on_train_batch_begin(number, {})
        losses, outputs = train()
        self._callback.on_train_batch_end(number, {"loss": float(losses[-1])})
        return losses, outputs

    def after_epoch(self, number: int, logs: Mapping[str, float]) -> None:
        """Tell loss and metrics of an epoch."""
        if self._callback is not None:
            self._callback.on_epoch_end(number, dict(logs))

    def end(self, logs: Mapping[str, float]) -> None:
        """Tell that the round ends."""
        if self._callback is not None:
            self._callback.on_train_end(dict(logs))

    def state(self) -> dict[str, Any]:
        """Return JSON that `restore` takes."""
        kept = self._callback.state() if isinstance(self._callback, PersistentCallback) else {}
        finite = {name: value for name, value in kept.items() if not isinstance(value, float) or math.isfinite(value)}
        return {"stopped": self.stopped, "callback": finite}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self._model.stop_training = state["stopped"]
        if isinstance(self._callback, PersistentCallback):
            self._callback.restore(state["callback"])
