"""Optimizers with a step size of its own for every weight, without Adam's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from locex_torch_builder.optimizers.base import CapturableConfig, DecayingConfig, TorchOptimizer, learning_rate

Positive = Annotated[float, Field(gt=0)]


class AdadeltaConfig(DecayingConfig, CapturableConfig):
    """Fields of ``torch.optim.Adadelta``."""

    lr: float = learning_rate(1.0)
    rho: float = Field(default=0.9, ge=0, le=1, description="Decay of the running average of squared gradients.")
    eps: float = Field(default=1e-6, ge=0, description="Added to the denominator.")


class Adadelta(TorchOptimizer):
    """Adadelta: ``torch.optim.Adadelta``."""

    torch_name = "Adadelta"
    config_model = AdadeltaConfig


class AdagradConfig(DecayingConfig):
    """Fields of ``torch.optim.Adagrad``."""

    lr: float = learning_rate(0.01)
    lr_decay: float = Field(default=0.0, ge=0, description="Decay of the learning rate with every step.")
    initial_accumulator_value: float = Field(default=0.0, ge=0, description="The sum of squares starts at this.")
    eps: float = Field(default=1e-10, ge=0, description="Added to the denominator.")
    fused: bool | None = Field(default=None, description="One kernel per step; absent: the builder chooses.")


class Adagrad(TorchOptimizer):
    """Adagrad, for sparse gradients too: ``torch.optim.Adagrad``."""

    torch_name = "Adagrad"
    config_model = AdagradConfig
    gradients = None


class RMSpropConfig(DecayingConfig, CapturableConfig):
    """Fields of ``torch.optim.RMSprop``."""

    lr: float = learning_rate(0.01)
    alpha: float = Field(default=0.99, ge=0, le=1, description="Decay of the running average of squared gradients.")
    eps: float = Field(default=1e-8, ge=0, description="Added to the denominator.")
    momentum: float = Field(default=0.0, ge=0, description="Momentum factor.")
    centered: bool = Field(default=False, description="Divide by an estimate of the gradient's variance.")


class RMSprop(TorchOptimizer):
    """RMSprop: ``torch.optim.RMSprop``."""

    torch_name = "RMSprop"
    config_model = RMSpropConfig


class RpropConfig(CapturableConfig):
    """Fields of ``torch.optim.Rprop``, which has no weight decay."""

    lr: float = learning_rate(0.01)
    etas: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=1)]] = Field(
        default=(0.5, 1.2), description="Factors by which a step size shrinks and grows."
    )
    step_sizes: tuple[Positive, Positive] = Field(default=(1e-6, 50.0), description="Least and largest step size.")


class Rprop(TorchOptimizer):
    """Resilient backpropagation, for whole batches: ``torch.optim.Rprop``."""

    torch_name = "Rprop"
    config_model = RpropConfig
