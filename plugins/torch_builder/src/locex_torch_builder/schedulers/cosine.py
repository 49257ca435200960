"""Schedulers along a cosine."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from locex_torch_builder.arguments import Count
from locex_torch_builder.schedulers.base import EpochConfig, TorchScheduler


class CosineAnnealingLRConfig(EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.CosineAnnealingLR``."""

    T_max: Count = Field(validation_alias=AliasChoices("T_max", "t_max"), description="Epochs down to eta_min.")
    eta_min: float = Field(default=0.0, ge=0, description="The least learning rate.")


class CosineAnnealingLR(TorchScheduler):
    """Half a cosine down and up again: ``torch.optim.lr_scheduler.CosineAnnealingLR``."""

    torch_name = "CosineAnnealingLR"
    config_model = CosineAnnealingLRConfig


class CosineAnnealingWarmRestartsConfig(EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``."""

    T_0: Count = Field(validation_alias=AliasChoices("T_0", "t_0"), description="Epochs until the first restart.")
    T_mult: Count = Field(
        default=1,
        validation_alias=AliasChoices("T_mult", "t_mult"),
        description="The epochs until the next restart grow by this factor.",
    )
    eta_min: float = Field(default=0.0, ge=0, description="The least learning rate.")


class CosineAnnealingWarmRestarts(TorchScheduler):
    """Down, then anew at the full rate: ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``."""

    torch_name = "CosineAnnealingWarmRestarts"
    config_model = CosineAnnealingWarmRestartsConfig
