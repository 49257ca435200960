"""The learning rate over a whole training: warm-up, then the scheduler; across rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR

from locex.api import BuildContext
from locex.schemas.job import WarmupConfig


class Schedule:
    """Steps warm-up and scheduler, and follows the learning rate of the configuration's entries."""

    def __init__(self, optimizer: Optimizer, context: BuildContext) -> None:
        """Make scheduler and warm-up over the optimizer, which has its full learning rate."""
        self._optimizer = optimizer
        self._entry_rate = context.config.learning_rate
        self._base = _rates(optimizer)
        factory = context.scheduler
        if context.warmup is not None:
            factory = context.warmup_scheduler or context.scheduler
        self._scheduler = factory(optimizer) if factory else None
        self._after_warmup = _rates(optimizer)
        self._per_step = False
        self._warmup: LinearLR | None = None
        if context.warmup is not None:
            self._start_warmup(context.warmup)

    def _start_warmup(self, config: WarmupConfig) -> None:
        self._per_step = config.warmup_iters is not None
        steps = config.warmup_iters or config.warmup_epochs or 0
        # the scheduler's own first factor counts only after the warm-up
        _set_rates(self._optimizer, self._base)
        self._warmup = LinearLR(self._optimizer, start_factor=config.warmup_factor, total_iters=steps)

    def after_step(self) -> None:
        """Tell that the optimizer made a step."""
        if self._warmup is not None and self._per_step:
            self._step_warmup(self._warmup)

    def after_epoch(self, *, warming: bool) -> None:
        """Tell that an epoch is over; ``warming``: whether it began in the warm-up."""
        if self._warmup is not None and not self._per_step:
            self._step_warmup(self._warmup)
        elif not warming and self._scheduler is not None:
            self._scheduler.step()

    @property
    def warming(self) -> bool:
        """Whether the warm-up goes on."""
        return self._warmup is not None

    def _step_warmup(self, warmup: LinearLR) -> None:
        warmup.step()
        if warmup.last_epoch >= warmup.total_iters:
            self._warmup = None
            # exact, where a product of many factors is not
            _set_rates(self._optimizer, self._after_warmup)

    def follow(self, rate: float | None) -> None:
        """Take up an entry's learning rate if it is another than the entry's before.

        It becomes the full learning rate; what warm-up and scheduler made of the old one holds for the new one.
        """
        if rate is None or rate == self._entry_rate:
            return
        self._entry_rate = rate
        now = _rates(self._optimizer)
        _set_rates(self._optimizer, _scaled(now, self._base, rate))
        self._after_warmup = _scaled(self._after_warmup, self._base, rate)
        self._base = [rate] * len(self._base)
        for group in self._optimizer.param_groups:
            group["initial_lr"] = rate
        for scheduler in (self._scheduler, self._warmup):
            if scheduler is not None and hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs = list(self._base)

    def state(self) -> dict[str, Any]:
        """Return JSON that `restore` takes."""
        return {
            "entry_rate": self._entry_rate,
            "base": self._base,
            "after_warmup": self._after_warmup,
            "warmup": None if self._warmup is None else _plain(self._warmup.state_dict()),
            "scheduler": None if self._scheduler is None else _plain(self._scheduler.state_dict()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned; the optimizer's learning rates are the optimizer's state."""
        self._entry_rate = state["entry_rate"]
        self._base = state["base"]
        self._after_warmup = state["after_warmup"]
        if state["warmup"] is None:
            self._warmup = None
        elif self._warmup is not None:
            self._warmup.load_state_dict(state["warmup"])
        if self._scheduler is not None and state["scheduler"] is not None:
            self._scheduler.load_state_dict(state["scheduler"])


def _rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def _set_rates(optimizer: Optimizer, rates: list[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _scaled(rates: list[float], base: list[float], rate: float) -> list[float]:
    return [rate if now == full else now * rate / full for now, full in zip(rates, base, strict=True)]


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what the constructor makes again from the same configuration, such as functions and counters."""
    return {key: value for key, value in state.items() if isinstance(value, int | float | str | list | None)}
