"""What every scheduler has in common."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from pydantic import Field

from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_torch_builder.arguments import REFUSALS, Arguments, refused

log = logging.getLogger(__name__)


class SchedulerConfig(Arguments):
    """What every scheduler takes."""

    verbose: bool = Field(default=False, description="Tell in the job's log that the scheduler is in use.")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments as PyTorch takes them; newer versions know no ``verbose``."""
        fields = super().arguments()
        del fields["verbose"]
        return fields


class EpochConfig(SchedulerConfig):
    """What every scheduler that counts takes."""

    last_epoch: int = Field(default=-1, ge=-1, lt=2**31, description="Index of the last epoch; -1 starts anew.")


class TorchScheduler:
    """A scheduler plugin whose configuration has the fields of a class of ``torch.optim.lr_scheduler``."""

    torch_name: ClassVar[str]
    config_model: ClassVar[type[SchedulerConfig]]

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the scheduler's fields."""
        return self.config_model

    @hookimpl
    def locex_create_scheduler(self, config: PluginConfig, optimizer: Any) -> Any:
        """Return the scheduler; raise `InvalidConfiguration` for a combination that PyTorch refuses."""
        assert isinstance(config, SchedulerConfig)
        if config.verbose:
            log.info("learning-rate scheduler %s: %s", self.torch_name, config.model_dump(exclude={"verbose"}))
        if getattr(config, "last_epoch", -1) >= 0:
            _name_initial_rates(optimizer)
        try:
            return self.make(config, optimizer)
        except REFUSALS as error:
            place = f"lr_scheduler.{self.torch_name}"
            raise refused(error, what="scheduler", place=place, path="/scheduler_config") from error

    def make(self, config: SchedulerConfig, optimizer: Any) -> Any:
        """Call PyTorch's constructor."""
        from torch.optim import lr_scheduler

        return getattr(lr_scheduler, self.torch_name)(optimizer, **config.arguments())


def _name_initial_rates(optimizer: Any) -> None:
    """PyTorch continues at ``last_epoch`` only where the groups know the rate that training began with."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
