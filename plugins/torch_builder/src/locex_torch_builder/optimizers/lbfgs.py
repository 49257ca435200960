"""L-BFGS, which asks for the loss several times per step."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_torch_builder.arguments import Count
from locex_torch_builder.optimizers.base import OptimizerConfig, TorchOptimizer, learning_rate


class LBFGSConfig(OptimizerConfig):
    """Fields of ``torch.optim.LBFGS``."""

    lr: float = learning_rate(1.0)
    max_iter: Count = Field(default=20, description="Iterations per step.")
    max_eval: Count | None = Field(default=None, description="Evaluations per step; absent: 1.25 times max_iter.")
    tolerance_grad: float = Field(default=1e-7, ge=0, description="A step ends where no gradient is larger.")
    tolerance_change: float = Field(default=1e-9, ge=0, description="A step ends where loss or weights change less.")
    history_size: int = Field(
        default=100, gt=0, le=10_000, description="Updates remembered, each as large as the model, twice."
    )
    line_search_fn: Literal["strong_wolfe"] | None = Field(default=None, description="strong_wolfe, or absent.")


class LBFGS(TorchOptimizer):
    """Limited-memory BFGS: ``torch.optim.LBFGS``. The session gives its steps a closure."""

    torch_name = "LBFGS"
    config_model = LBFGSConfig
    gradients = None

    @hookimpl
    def locex_create_optimizer(self, config: PluginConfig, parameters: Any) -> Any:
        """Return the optimizer over weights in plain order: it cannot flatten the gradients of other layouts."""
        weights = list(parameters)
        for weight in weights:
            weight.data = weight.data.contiguous()
        return super().locex_create_optimizer(config, weights)
