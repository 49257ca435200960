"""What every optimizer has in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, AliasChoices, Field

from locex.errors import InvalidConfiguration
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_torch_builder.arguments import REFUSALS, Arguments, refused
from locex_torch_builder.optimizers.gradients import GradientCheck

Decay = Annotated[float, Field(ge=0, lt=1)]


def _no_autograd(differentiable: bool) -> bool:
    if differentiable:
        raise ValueError("PyTorch cannot train a model's own parameters with it: leave it out")
    return differentiable


def learning_rate(default: float) -> Any:
    """Return the field of the learning rate, under both of its names."""
    return Field(
        default=default,
        gt=0,
        validation_alias=AliasChoices("lr", "learning_rate"),
        description="The learning rate; absent: the configuration entry's, else this default.",
    )


def weight_decay(default: float = 0.0) -> Any:
    """Return the field of the weight decay."""
    return Field(default=default, ge=0, description="L2 penalty; decoupled from the gradient in AdamW.")


class OptimizerConfig(Arguments):
    """What every optimizer takes."""

    lr: float = learning_rate(0.001)


class DenseConfig(OptimizerConfig):
    """What every optimizer over dense gradients takes."""

    maximize: bool = Field(default=False, description="Maximize the loss instead of minimizing it.")
    foreach: bool | None = Field(default=None, description="Update all tensors at once; absent: the builder chooses.")
    differentiable: Annotated[bool, AfterValidator(_no_autograd)] = Field(
        default=False, description="Let autograd run through the step: only false trains a model's own parameters."
    )


class DecayingConfig(DenseConfig):
    """What optimizers with weight decay take."""

    weight_decay: float = weight_decay()


class CapturableConfig(DenseConfig):
    """What optimizers that a CUDA graph can hold take."""

    capturable: bool = Field(default=False, description="Safe to capture in a CUDA graph; needs a GPU.")


class TorchOptimizer:
    """An optimizer plugin whose configuration has the fields of a class of ``torch.optim``."""

    torch_name: ClassVar[str]
    config_model: ClassVar[type[Arguments]]
    gradients: ClassVar[str | None] = "dense"
    """The only layout of gradients that the optimizer takes: ``dense``, ``sparse``, None for both."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the optimizer's fields."""
        return self.config_model

    @hookimpl
    def locex_create_optimizer(self, config: PluginConfig, parameters: Any) -> Any:
        """Return the optimizer; raise `InvalidConfiguration` for a combination that PyTorch refuses.

        A model whose gradients have a layout that the optimizer cannot take is refused at its first step.
        """
        from torch import optim

        assert isinstance(config, Arguments)
        arguments = config.arguments()
        try:
            optimizer = getattr(optim, self.torch_name)(parameters, **arguments)
        except REFUSALS as error:
            raise refused(error, what="optimizer", place=self.torch_name, path="/optimizer_config") from error
        if arguments.get("capturable") and _on_cpu(optimizer):
            message = "capturable needs the model on a GPU"
            raise InvalidConfiguration(
                message,
                remedy="leave capturable out on this node",
                errors=[{"path": "/optimizer_config/capturable", "message": message}],
            )
        if self.gradients is not None:
            optimizer.register_step_pre_hook(GradientCheck(self.torch_name, sparse=self.gradients == "sparse"))
        return optimizer


def _on_cpu(optimizer: Any) -> bool:
    return any(parameter.device.type == "cpu" for group in optimizer.param_groups for parameter in group["params"])
