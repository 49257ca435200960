"""Adam and its kin."""

from __future__ import annotations

from pydantic import Field

from locex_torch_builder.optimizers.base import (
    CapturableConfig,
    Decay,
    DecayingConfig,
    OptimizerConfig,
    TorchOptimizer,
    learning_rate,
    weight_decay,
)


class MomentsConfig(DecayingConfig, CapturableConfig):
    """Running averages of the gradient and of its square."""

    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="Decay of both running averages.")
    eps: float = Field(default=1e-8, ge=0, description="Added to the denominator.")


class AdamaxConfig(MomentsConfig):
    """Fields of ``torch.optim.Adamax``."""

    lr: float = learning_rate(0.002)


class Adamax(TorchOptimizer):
    """Adam with the infinity norm: ``torch.optim.Adamax``."""

    torch_name = "Adamax"
    config_model = AdamaxConfig


class RAdamConfig(MomentsConfig):
    """Fields of ``torch.optim.RAdam``."""

    decoupled_weight_decay: bool = Field(default=False, description="Weight decay as in AdamW.")


class RAdam(TorchOptimizer):
    """Rectified Adam: ``torch.optim.RAdam``."""

    torch_name = "RAdam"
    config_model = RAdamConfig


class NAdamConfig(MomentsConfig):
    """Fields of ``torch.optim.NAdam``."""

    lr: float = learning_rate(0.002)
    momentum_decay: float = Field(default=4e-3, ge=0, description="Decay of the momentum.")
    decoupled_weight_decay: bool = Field(default=False, description="Weight decay as in AdamW.")


class NAdam(TorchOptimizer):
    """Adam with Nesterov momentum: ``torch.optim.NAdam``."""

    torch_name = "NAdam"
    config_model = NAdamConfig


class AdamWConfig(MomentsConfig):
    """Fields of ``torch.optim.AdamW``."""

    weight_decay: float = weight_decay(0.01)
    amsgrad: bool = Field(default=False, description="The AMSGrad variant.")
    fused: bool | None = Field(default=None, description="One kernel per step; absent: the builder chooses.")


class AdamW(TorchOptimizer):
    """Adam with decoupled weight decay: ``torch.optim.AdamW``."""

    torch_name = "AdamW"
    config_model = AdamWConfig


class AdamConfig(AdamWConfig):
    """Fields of ``torch.optim.Adam``."""

    weight_decay: float = weight_decay()
    decoupled_weight_decay: bool = Field(default=False, description="Weight decay as in AdamW.")


class Adam(TorchOptimizer):
    """Adam: ``torch.optim.Adam``."""

    torch_name = "Adam"
    config_model = AdamConfig


class SparseAdamConfig(OptimizerConfig):
    """Fields of ``torch.optim.SparseAdam``."""

    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="Decay of both running averages.")
    eps: float = Field(default=1e-8, gt=0, description="Added to the denominator.")
    maximize: bool = Field(default=False, description="Maximize the loss instead of minimizing it.")


class SparseAdam(TorchOptimizer):
    """Adam for models of embeddings with ``sparse=True`` alone: ``torch.optim.SparseAdam``."""

    torch_name = "SparseAdam"
    config_model = SparseAdamConfig
    gradients = "sparse"
