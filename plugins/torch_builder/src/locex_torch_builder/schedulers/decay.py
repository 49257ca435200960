"""Schedulers that multiply the learning rate at given epochs."""

from __future__ import annotations

from pydantic import Field

from locex_torch_builder.arguments import Count
from locex_torch_builder.schedulers.base import EpochConfig, TorchScheduler


class StepLRConfig(EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.StepLR``."""

    step_size: Count = Field(description="Epochs between two decays.")
    gamma: float = Field(default=0.1, gt=0, description="The learning rate is multiplied by this at each decay.")


class StepLR(TorchScheduler):
    """Decay in equal steps: ``torch.optim.lr_scheduler.StepLR``."""

    torch_name = "StepLR"
    config_model = StepLRConfig


class MultiStepLRConfig(EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.MultiStepLR``."""

    milestones: list[int] = Field(min_length=1, description="Epochs of a decay; one given twice counts twice.")
    gamma: float = Field(default=0.1, gt=0, description="The learning rate is multiplied by this at each decay.")


class MultiStepLR(TorchScheduler):
    """Decay at given epochs: ``torch.optim.lr_scheduler.MultiStepLR``."""

    torch_name = "MultiStepLR"
    config_model = MultiStepLRConfig


class ExponentialLRConfig(EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.ExponentialLR``."""

    gamma: float = Field(gt=0, description="The learning rate is multiplied by this after every epoch.")


class ExponentialLR(TorchScheduler):
    """Decay with every epoch: ``torch.optim.lr_scheduler.ExponentialLR``."""

    torch_name = "ExponentialLR"
    config_model = ExponentialLRConfig


class ConstantLRConfig(EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.ConstantLR``."""

    factor: float = Field(default=1 / 3, gt=0, le=1, description="The share of the learning rate until total_iters.")
    total_iters: Count = Field(default=5, description="Epochs until the full learning rate.")


class ConstantLR(TorchScheduler):
    """A share, then the full rate: ``torch.optim.lr_scheduler.ConstantLR``."""

    torch_name = "ConstantLR"
    config_model = ConstantLRConfig


class LinearLRConfig(EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.LinearLR``."""

    start_factor: float = Field(default=1 / 3, gt=0, le=1, description="The share of the learning rate at the start.")
    end_factor: float = Field(default=1.0, ge=0, le=1, description="The share of the learning rate at the end.")
    total_iters: Count = Field(default=5, description="Epochs until the end.")


class LinearLR(TorchScheduler):
    """From one share to another in a line: ``torch.optim.lr_scheduler.LinearLR``."""

    torch_name = "LinearLR"
    config_model = LinearLRConfig
