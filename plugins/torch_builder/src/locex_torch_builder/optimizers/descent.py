"""Stochastic gradient descent and its average."""

from __future__ import annotations

from pydantic import Field

from locex_torch_builder.optimizers.base import CapturableConfig, DecayingConfig, TorchOptimizer, learning_rate


class SgdConfig(DecayingConfig):
    """Fields of ``torch.optim.SGD``."""

    momentum: float = Field(default=0.0, ge=0, description="Momentum factor.")
    dampening: float = Field(default=0.0, description="Dampening of the momentum.")
    nesterov: bool = Field(default=False, description="Nesterov momentum; needs momentum and no dampening.")
    fused: bool | None = Field(default=None, description="One kernel per step; absent: the builder chooses.")


class Sgd(TorchOptimizer):
    """Stochastic gradient descent, for sparse gradients too: ``torch.optim.SGD``."""

    torch_name = "SGD"
    config_model = SgdConfig
    gradients = None


class ASGDConfig(DecayingConfig, CapturableConfig):
    """Fields of ``torch.optim.ASGD``."""

    lr: float = learning_rate(0.01)
    lambd: float = Field(default=1e-4, ge=0, description="Decay term.")
    alpha: float = Field(default=0.75, ge=0, description="Power of the learning rate's decay.")
    t0: float = Field(default=1e6, ge=0, description="Steps after which averaging begins.")


class ASGD(TorchOptimizer):
    """Averaged stochastic gradient descent: ``torch.optim.ASGD``."""

    torch_name = "ASGD"
    config_model = ASGDConfig
