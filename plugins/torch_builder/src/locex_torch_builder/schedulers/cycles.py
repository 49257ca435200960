"""Schedulers that step with every batch, between rates of their own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from locex_torch_builder.arguments import Count, PerGroup
from locex_torch_builder.schedulers.base import EpochConfig, SchedulerConfig, TorchScheduler
from locex_torch_builder.schedulers.expression import parse


def _of_x(text: str) -> str:
    parse(text, "x")
    return text


Share = Annotated[float, Field(ge=0, lt=1)]


class CyclicLRConfig(EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.CyclicLR``."""

    per_group = ("base_lr", "max_lr")

    base_lr: PerGroup = Field(description="The least learning rate, where cycles begin; the optimizer's is unused.")
    max_lr: PerGroup = Field(description="The largest learning rate, half way.")
    step_size_up: Count = Field(default=2000, description="Steps of the optimizer up to max_lr.")
    step_size_down: Count | None = Field(default=None, description="Steps down again; absent: step_size_up.")
    mode: Literal["triangular", "triangular2", "exp_range"] = Field(
        default="triangular", description="Equal cycles, halved with every cycle, or shrunk by gamma with every step."
    )
    gamma: float = Field(default=1.0, gt=0, description="Of exp_range: gamma ** steps.")
    scale_fn: Annotated[str, AfterValidator(_of_x)] | None = Field(
        default=None, description="Instead of mode: an expression of x, which is the cycle or the step."
    )
    scale_mode: Literal["cycle", "iterations"] = Field(default="cycle", description="What x is in scale_fn.")
    cycle_momentum: bool = Field(
        default=True, description="Momentum or first beta go the other way; false for optimizers without."
    )
    base_momentum: Share = Field(default=0.8, description="The least momentum, at max_lr.")
    max_momentum: Share = Field(default=0.9, description="The largest momentum, at base_lr.")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments with a function for the expression."""
        scale = None if self.scale_fn is None else parse(self.scale_fn, "x")
        return super().arguments() | {"scale_fn": scale}


class CyclicLR(TorchScheduler):
    """Up and down for ever: ``torch.optim.lr_scheduler.CyclicLR``. Steps with every batch."""

    torch_name = "CyclicLR"
    config_model = CyclicLRConfig


class OneCycleLRConfig(EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.OneCycleLR``."""

    per_group = ("max_lr", "base_momentum", "max_momentum")

    max_lr: PerGroup = Field(description="The largest learning rate; the optimizer's is unused.")
    total_steps: Count | None = Field(
        default=None,
        description="Steps of the optimizer in the whole training, over all rounds; afterwards the last rate stays. "
        "Absent: epochs times steps_per_epoch.",
    )
    epochs: Count | None = Field(default=None, description="Epochs of the whole training, over all rounds.")
    steps_per_epoch: Count | None = Field(default=None, description="Steps of the optimizer per epoch.")
    pct_start: float = Field(default=0.3, ge=0, lt=1, description="The share of all steps in which the rate rises.")
    anneal_strategy: Literal["cos", "linear"] = Field(default="cos", description="Along a cosine or a line.")
    cycle_momentum: bool = Field(
        default=True, description="Momentum or first beta go the other way; false for optimizers without."
    )
    base_momentum: PerGroup = Field(default=[0.85], description="The least momentum, at max_lr.")
    max_momentum: PerGroup = Field(default=[0.95], description="The largest momentum, at both ends.")
    div_factor: float = Field(default=25.0, gt=0, description="The first rate is max_lr divided by this.")
    final_div_factor: float = Field(default=1e4, gt=0, description="The last rate is the first one divided by this.")
    three_phase: bool = Field(default=False, description="Fall as long as it rose, then to the last rate.")

    @model_validator(mode="after")
    def _has_a_length(self) -> OneCycleLRConfig:
        if self.total_steps is None and (self.epochs is None or self.steps_per_epoch is None):
            raise ValueError("onecyclelr needs total_steps, or epochs and steps_per_epoch")
        if self.last_epoch >= (self.total_steps or (self.epochs or 0) * (self.steps_per_epoch or 0)):
            raise ValueError("last_epoch lies after the last step")
        return self


class OneCycleLR(TorchScheduler):
    """One rise and one fall: ``torch.optim.lr_scheduler.OneCycleLR``. Steps with every batch."""

    torch_name = "OneCycleLR"
    config_model = OneCycleLRConfig

    def make(self, config: SchedulerConfig, optimizer: Any) -> Any:
        """Return the scheduler; a later epoch than the first one needs what the first one sets."""
        from locex_torch_builder.schedulers.held import OneCycleLR as Held

        arguments = config.arguments()
        if arguments["last_epoch"] >= 0:
            Held(optimizer, **arguments | {"last_epoch": -1})
        return Held(optimizer, **arguments)
