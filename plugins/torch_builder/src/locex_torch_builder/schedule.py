"""The learning rate over a whole training: warm-up, then the scheduler; across rounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LinearLR, OneCycleLR, ReduceLROnPlateau

from locex.api import BuildContext
from locex.errors import InvalidConfiguration
from locex.schemas.job import WarmupConfig
from locex_torch_builder.arguments import moved


class Schedule:
    """Steps warm-up and scheduler, and follows the learning rate of the configuration's entries.

    ``monitor`` is the metric that the scheduler watches, or None. A scheduler plugin that returns a
    ``ReduceLROnPlateau`` names it in an attribute of the same name; where it does not, it is ``val_loss``.
    """

    monitor: str | None = None

    def __init__(self, optimizer: Optimizer, context: BuildContext) -> None:
        """Make scheduler and warm-up over the optimizer, which has its full learning rate."""
        self._optimizer = optimizer
        self._entry_rate = context.config.learning_rate
        self._path = "/scheduler_config"
        rates = _rates(optimizer)
        self._scheduler = self._make_scheduler(context)
        parts = list(_parts(self._scheduler))
        # cycles have rates of their own: the optimizer's, and an entry's, do not count with them
        self._by_batch = any(isinstance(part, CyclicLR | OneCycleLR) for part in parts)
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self.monitor = getattr(self._scheduler, "monitor", "val_loss")
        groups = zip(optimizer.param_groups, rates, strict=True)
        self._base = [float(group.get("initial_lr", rate)) for group, rate in groups]
        self._after_warmup = _rates(optimizer)
        self._warmup_by_batch = False
        self._warmup: LinearLR | None = None
        if context.warmup is not None:
            self._start_warmup(context.warmup)

    def _make_scheduler(self, context: BuildContext) -> Any:
        factory = context.scheduler
        if context.warmup is not None and context.warmup_scheduler is not None:
            factory, self._path = context.warmup_scheduler, "/warmup_config/scheduler_conf"
        return self._checked(factory, self._optimizer) if factory is not None else None

    def _start_warmup(self, config: WarmupConfig) -> None:
        self._warmup_by_batch = config.warmup_iters is not None
        steps = config.warmup_iters or config.warmup_epochs or 0
        # the scheduler's own first factor counts only after the warm-up
        _set_rates(self._optimizer, self._base)
        self._warmup = LinearLR(self._optimizer, start_factor=config.warmup_factor, total_iters=steps)

    def require_monitor(self, names: Collection[str]) -> None:
        """Raise `InvalidConfiguration` if the scheduler watches a metric that is not among these."""
        if self.monitor is not None and self.monitor not in names:
            message = f"there is no metric {self.monitor!r} to monitor; there are: {', '.join(names)}"
            raise InvalidConfiguration(
                message,
                remedy="monitor one of them, or add the metric to eval_metrics",
                errors=[{"path": f"{self._path}/monitor", "message": message}],
            )

    def require_blind(self) -> None:
        """Raise `InvalidConfiguration` for a scheduler that watches a metric: weights would tell of it."""
        if self.monitor is not None:
            message = f"a scheduler that monitors {self.monitor} does not go with private gradients"
            raise InvalidConfiguration(
                message,
                remedy="choose a scheduler that follows a plan, e.g. steplr",
                errors=[{"path": self._path, "message": message}],
            )

    def after_step(self) -> None:
        """Tell that the optimizer made a step."""
        if self._warmup is not None:
            if self._warmup_by_batch:
                self._step_warmup(self._warmup)
        elif self._by_batch:
            self._checked(self._scheduler.step)

    def after_epoch(self, *, warming: bool, metrics: Mapping[str, float]) -> None:
        """Tell that an epoch is over.

        ``warming``: whether it began in the warm-up. ``metrics``: loss and metrics of the epoch, those of the test
        data under names with ``val_``; `monitor` is among them.
        """
        if self._warmup is not None:
            if not self._warmup_by_batch:
                self._step_warmup(self._warmup)
        elif not warming and self._scheduler is not None and not self._by_batch:
            self._checked(self._scheduler.step, *([metrics[self.monitor]] if self.monitor else []))

    @property
    def warming(self) -> bool:
        """Whether the warm-up goes on."""
        return self._warmup is not None

    @property
    def kind(self) -> str:
        """The classes of the scheduler and its parts."""
        return ", ".join(type(part).__name__ for part in _parts(self._scheduler))

    def _step_warmup(self, warmup: LinearLR) -> None:
        warmup.step()
        if warmup.last_epoch >= warmup.total_iters:
            self._warmup = None
            # exact, where a product of many factors is not
            _set_rates(self._optimizer, self._after_warmup)

    def _checked(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call the scheduler; the user's expressions and numbers may come to no value at some epoch."""
        try:
            return call(*arguments)
        except InvalidConfiguration as error:
            raise moved(error, self._path) from error
        except (ArithmeticError, ValueError) as error:
            message = f"the scheduler cannot go on: {error}"
            raise InvalidConfiguration(
                message,
                remedy="correct the scheduler's fields",
                errors=[{"path": self._path, "message": message}],
            ) from error

    def follow(self, rate: float | None) -> None:
        """Take up an entry's learning rate if it is another than the entry's before.

        It becomes the full learning rate; what warm-up and scheduler made of the old one holds for the new one.
        Schedulers with rates of their own (cycliclr, onecyclelr) keep them.
        """
        if rate is None or rate == self._entry_rate:
            return
        self._entry_rate = rate
        if self._by_batch:
            return
        now = _rates(self._optimizer)
        _set_rates(self._optimizer, _scaled(now, self._base, rate))
        self._after_warmup = _scaled(self._after_warmup, self._base, rate)
        self._base = [rate] * len(self._base)
        for group in self._optimizer.param_groups:
            group["initial_lr"] = rate
        for part in (*_parts(self._scheduler), *_parts(self._warmup)):
            if hasattr(part, "base_lrs"):
                part.base_lrs = list(self._base)

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


def _parts(scheduler: Any) -> Iterator[Any]:
    """Yield a scheduler and all that it is made of."""
    if scheduler is not None:
        yield scheduler
        for part in getattr(scheduler, "_schedulers", ()):
            yield from _parts(part)


def _rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def _set_rates(optimizer: Optimizer, rates: list[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _scaled(rates: list[float], base: list[float], rate: float) -> list[float]:
    return [rate if now == full else now * rate / full for now, full in zip(rates, base, strict=True)]


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what the constructor makes again from the same configuration, such as functions and counters."""
    plain = {key: value for key, value in state.items() if isinstance(value, int | float | str | list | None)}
    if "_schedulers" in state:
        plain["_schedulers"] = [_plain(part) for part in state["_schedulers"]]
    return plain
