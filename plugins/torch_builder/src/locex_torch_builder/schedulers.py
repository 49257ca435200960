"""Learning-rate schedulers by torch's names. One more is one configuration, one class and one entry point."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from pydantic import Field

from locex.errors import InvalidConfiguration
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig

log = logging.getLogger(__name__)


class SchedulerConfig(PluginConfig):
    """What every scheduler takes."""

    last_epoch: int = Field(default=-1, ge=-1, description="Index of the last epoch; -1 starts anew.")
    verbose: bool = Field(default=False, description="Tell in the job's log that the scheduler is in use.")


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
        """Return the scheduler; it steps once per epoch of local training, across rounds."""
        from torch.optim import lr_scheduler

        fields = config.model_dump()
        if fields.pop("verbose"):
            log.info("learning-rate scheduler %s: %s", self.torch_name, fields)
        if fields["last_epoch"] >= 0:
            _name_initial_rates(optimizer)
        try:
            return getattr(lr_scheduler, self.torch_name)(optimizer, **fields)
        except ValueError as error:
            raise InvalidConfiguration(
                f"PyTorch refuses the scheduler's fields: {error}",
                remedy=f"see torch.optim.lr_scheduler.{self.torch_name}",
                errors=[{"path": "/scheduler_config", "message": str(error)}],
            ) from error


def _name_initial_rates(optimizer: Any) -> None:
    """PyTorch continues at ``last_epoch`` only where the groups know the rate that training began with."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])


class StepLRConfig(SchedulerConfig):
    """Fields of ``torch.optim.lr_scheduler.StepLR``."""

    step_size: int = Field(gt=0, description="Epochs between two decays.")
    gamma: float = Field(default=0.1, gt=0, description="The learning rate is multiplied by this at each decay.")


class StepLR(TorchScheduler):
    """Decay in steps: ``torch.optim.lr_scheduler.StepLR``."""

    torch_name = "StepLR"
    config_model = StepLRConfig
