"""What makes Keras' callbacks last over rounds: mixed into the classes of either Keras, which begin each fit anew."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from locex.errors import InvalidConfiguration, LocexError

log = logging.getLogger(__name__)

if TYPE_CHECKING:

    class _Callback:
        """What the mixins use of Keras' callbacks."""

        model: Any
        monitor: str
        best: Any
        best_weights: Any
        restore_best_weights: bool
        stopped_epoch: int

        def __init__(self, **fields: Any) -> None: ...
        def on_train_begin(self, logs: Any = None) -> None: ...
        def on_train_end(self, logs: Any = None) -> None: ...
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...
        def on_batch_end(self, batch: int, logs: Any = None) -> None: ...
        def _is_improvement(self, value: float, reference: float) -> bool: ...

else:
    _Callback = object


class Lasting(_Callback):
    """Keeps a callback's counters between calls of ``fit``, and over restarts by `state` and `restore`."""

    kept: ClassVar[tuple[str, ...]] = ()
    stopped: bool = False
    """Whether training is over: later rounds only evaluate."""

    def __init__(self, *, verbose: bool = False, **fields: Any) -> None:
        """Take Keras' own fields; what ``verbose`` asks for goes to the log instead of the standard output."""
        super().__init__(**fields)
        self._verbose = verbose
        self._last: dict[str, Any] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Go on where the last round ended."""
        super().on_train_begin(logs)
        self.__dict__.update(self._last)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Remember what is kept."""
        super().on_epoch_end(epoch, logs)
        self._last = {name: getattr(self, name) for name in self.kept if getattr(self, name) is not None}

    def state(self) -> dict[str, Any]:
        """Return JSON that `restore` takes; a reduced learning rate is the optimizer's state, not the callback's."""
        plain = {name: value if isinstance(value, int) else float(value) for name, value in self._last.items()}
        return {name: value for name, value in plain.items() if math.isfinite(value)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self._last = dict(state)
        self.__dict__.update(self._last)

    def _watched(self, logs: Any) -> float:
        """Return the value of ``monitor``; Keras would only warn where there is none."""
        if self.monitor in (logs or {}):
            return float(logs[self.monitor])
        message = f"monitor {self.monitor!r} is not measured; measured are: {', '.join(sorted(logs or {}))}"
        raise InvalidConfiguration(
            message,
            remedy="choose one of these, or add the metric to eval_metrics",
            errors=[{"path": "/scheduler_config/monitor", "message": message}],
        )


class LastingEarlyStopping(Lasting):
    """Patience, best value and `stopped` last; the weights that ``restore_best_weights`` restores are the round's."""

    kept = ("wait", "best", "epochs", "stopped_epoch")
    epochs = 0
    _best_of_round = math.nan

    @property
    def stopped(self) -> bool:  # type: ignore[override]
        """Whether it has fired, in this round or before."""
        return self.stopped_epoch > 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 -- Keras counts epochs per round
        """Watch; ``start_from_epoch`` counts the epochs of all rounds."""
        value = self._watched(logs)
        weights = self.best_weights
        self.epochs += 1
        super().on_epoch_end(self.epochs - 1, logs)
        if self.best_weights is not weights:
            self._best_of_round = value
        elif weights is not None and self._is_improvement(value, self._best_of_round):
            # better than the round's others, though not than the training's best
            self.best_weights, self._best_of_round = self.model.get_weights(), value
        if self.stopped and self._verbose:
            log.info("early stopping after epoch %d: %s is %g, was %g", self.epochs, self.monitor, value, self.best)

    def on_train_end(self, logs: Any = None) -> None:
        """Restore the round's best weights if so configured, and keep no copy of them."""
        super().on_train_end(logs)
        self.best_weights = None


class LastingReduceLROnPlateau(Lasting):
    """Patience, cooldown and best value last."""

    kept = ("wait", "best", "cooldown_counter")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Watch, and tell of a reduction."""
        self._watched(logs)
        before = self._rate()
        super().on_epoch_end(epoch, logs)
        if self._verbose and self._rate() != before:
            log.info("learning rate reduced from %g to %g: no better %s", before, self._rate(), self.monitor)

    def _rate(self) -> float:
        return float(self.model.optimizer.learning_rate)


class StrictTerminateOnNaN(Lasting):
    """Fails the round where Keras would only end it, so that nothing of it is sent."""

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        """Raise `LocexError` (``training-diverged``) if the loss so far is not finite."""
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise LocexError(
                f"the training diverged: the loss at batch {batch + 1} is {loss}",
                remedy="lower the learning rate, or check the data for extreme values",
                code="training-diverged",
            )
