"""Optimizers by torch's names. One more is one configuration, one class and one entry point."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, ConfigDict, Field

from locex.errors import InvalidConfiguration
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig

Decay = Annotated[float, Field(ge=0, lt=1)]


def _both_names_of_lr(schema: dict[str, Any]) -> None:
    schema["properties"]["learning_rate"] = schema["properties"]["lr"] | {"title": "Learning Rate"}


class OptimizerConfig(PluginConfig):
    """What every optimizer takes."""

    model_config = ConfigDict(json_schema_extra=_both_names_of_lr)

    lr: float = Field(
        default=0.001, gt=0, validation_alias=AliasChoices("lr", "learning_rate"), description="The learning rate."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="L2 penalty.")
    maximize: bool = Field(default=False, description="Maximize the loss instead of minimizing it.")
    foreach: bool | None = Field(default=None, description="Update all tensors at once; absent: PyTorch chooses.")
    differentiable: bool = Field(default=False, description="Let autograd run through the step.")
    fused: bool | None = Field(default=None, description="One kernel per step; absent: PyTorch chooses.")


class TorchOptimizer:
    """An optimizer plugin whose configuration has the fields of a class of ``torch.optim``."""

    torch_name: ClassVar[str]
    config_model: ClassVar[type[OptimizerConfig]]

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the optimizer's fields."""
        return self.config_model

    @hookimpl
    def locex_create_optimizer(self, config: PluginConfig, parameters: Any) -> Any:
        """Return the optimizer; raise `InvalidConfiguration` for a combination that PyTorch refuses."""
        from torch import optim

        try:
            return getattr(optim, self.torch_name)(parameters, **config.model_dump())
        except (ValueError, RuntimeError) as error:
            raise InvalidConfiguration(
                f"PyTorch refuses the optimizer's fields: {error}",
                remedy=f"see torch.optim.{self.torch_name}",
                errors=[{"path": "/optimizer_config", "message": str(error)}],
            ) from error


class SgdConfig(OptimizerConfig):
    """Fields of ``torch.optim.SGD``."""

    momentum: float = Field(default=0.0, ge=0, description="Momentum factor.")
    dampening: float = Field(default=0.0, description="Dampening of the momentum.")
    nesterov: bool = Field(default=False, description="Nesterov momentum; needs momentum and no dampening.")


class Sgd(TorchOptimizer):
    """Stochastic gradient descent: ``torch.optim.SGD``."""

    torch_name = "SGD"
    config_model = SgdConfig


class AdamConfig(OptimizerConfig):
    """Fields of ``torch.optim.Adam``."""

    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="Decay of both running averages.")
    eps: float = Field(default=1e-8, ge=0, description="Added to the denominator.")
    amsgrad: bool = Field(default=False, description="The AMSGrad variant.")
    capturable: bool = Field(default=False, description="Safe to capture in a CUDA graph.")
    decoupled_weight_decay: bool = Field(default=False, description="Weight decay as in AdamW.")


class Adam(TorchOptimizer):
    """Adam: ``torch.optim.Adam``."""

    torch_name = "Adam"
    config_model = AdamConfig
