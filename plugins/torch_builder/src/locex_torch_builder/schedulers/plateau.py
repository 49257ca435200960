"""The scheduler that watches a metric."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from locex_torch_builder.arguments import PerGroup
from locex_torch_builder.schedulers.base import SchedulerConfig, TorchScheduler


class ReduceLROnPlateauConfig(SchedulerConfig):
    """Fields of ``torch.optim.lr_scheduler.ReduceLROnPlateau``, and the metric that it watches."""

    per_group = ("min_lr",)

    monitor: str = Field(
        default="val_loss",
        description="The metric of each epoch: loss or one of eval_metrics, after val_ that of the test data.",
    )
    mode: Literal["min", "max"] = Field(default="min", description="Whether the metric should fall or rise.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="The learning rate is multiplied by this.")
    patience: int = Field(default=10, ge=0, lt=2**31, description="Epochs without progress that are borne.")
    threshold: float = Field(default=1e-4, ge=0, description="Less than this is no progress.")
    threshold_mode: Literal["rel", "abs"] = Field(default="rel", description="Relative to the best, or absolute.")
    cooldown: int = Field(default=0, ge=0, lt=2**31, description="Epochs after a reduction that count for nothing.")
    min_lr: PerGroup = Field(default=[0.0], description="The least learning rate.")
    eps: float = Field(default=1e-8, ge=0, description="A smaller reduction is not made.")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of PyTorch's constructor, which is told the metric only at each step."""
        fields = super().arguments()
        del fields["monitor"]
        return fields


class ReduceLROnPlateau(TorchScheduler):
    """Less where a metric stands still: ``torch.optim.lr_scheduler.ReduceLROnPlateau``."""

    torch_name = "ReduceLROnPlateau"
    config_model = ReduceLROnPlateauConfig

    def make(self, config: SchedulerConfig, optimizer: Any) -> Any:
        """Call PyTorch's constructor, and name the metric in the attribute ``monitor``."""
        assert isinstance(config, ReduceLROnPlateauConfig)
        scheduler = super().make(config, optimizer)
        scheduler.monitor = config.monitor
        return scheduler
