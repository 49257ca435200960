"""Optimizers by Keras' names. One more is one configuration, one class and one entry point."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, Field

from locex.errors import InvalidConfiguration
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_keras_builder.kerases import Keras
from locex_keras_builder.nadam import SteadyNadam
from locex_keras_builder.target import CompileTarget

Decay = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, validation_alias=AliasChoices("learning_rate", "lr"))]
Strength = Annotated[float, Field(ge=0)]


class OptimizerConfig(PluginConfig):
    """What every optimizer takes. A field that is absent leaves the default to the Keras of the model."""

    learning_rate: Rate = Field(default=0.001, description="The learning rate.")
    weight_decay: Strength | None = Field(default=None, description="Decoupled weight decay per step.")
    clipnorm: float | None = Field(default=None, gt=0, description="Clips the norm of each weight's gradient.")
    clipvalue: float | None = Field(default=None, gt=0, description="Clips each element of the gradients.")
    global_clipnorm: float | None = Field(default=None, gt=0, description="Clips the norm of all gradients together.")
    use_ema: bool = Field(default=False, description="Keep a moving average of the weights, which ends in the model.")
    ema_momentum: float = Field(default=0.99, ge=0, le=1, description="Share of the old average in each step.")
    ema_overwrite_frequency: int | None = Field(
        default=None, gt=0, description="Steps after which the average overwrites the weights; absent: at the end."
    )
    loss_scale_factor: float | None = Field(
        default=None, gt=0, description="The loss is multiplied and gradients are divided by this (Keras 3)."
    )
    gradient_accumulation_steps: int | None = Field(
        default=None, ge=2, description="Steps whose gradients make one update (Keras 3)."
    )
    name: str | None = Field(default=None, description="The optimizer's name.")
    jit_compile: bool | None = Field(
        default=None, description="XLA: Keras 3 compiles the model's step with it, tf_keras the optimizer's."
    )


class KerasOptimizer:
    """An optimizer plugin whose configuration has the fields of a class of ``keras.optimizers``."""

    keras_name: ClassVar[str]
    config_model: ClassVar[type[OptimizerConfig]]

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the optimizer's fields."""
        return self.config_model

    @hookimpl
    def locex_create_optimizer(self, config: PluginConfig, parameters: CompileTarget) -> Any:
        """Return an optimizer of the target's Keras; ``jit_compile`` goes to ``compile()`` where it takes none.

        A field that the target's Keras lacks is left out with a warning. Raise `InvalidConfiguration` for a
        combination that Keras refuses.
        """
        keras = parameters.keras
        optimizer = self._optimizer_of(keras)
        fields = config.model_dump(exclude_none=True)
        taken = inspect.signature(optimizer).parameters
        if "jit_compile" not in taken:
            parameters.jit_compile = fields.pop("jit_compile", None)
        for name in sorted(fields.keys() - taken.keys()):
            parameters.warn(f"optimizer_config.{name} was ignored: {keras.name}'s {self.keras_name} has no such field")
            del fields[name]
        try:
            return optimizer(**fields)
        except ValueError as error:
            raise InvalidConfiguration(
                f"Keras refuses the optimizer's fields: {error}",
                remedy=f"see keras.optimizers.{self.keras_name}",
                errors=[{"path": "/optimizer_config", "message": str(error)}],
            ) from error

    def _optimizer_of(self, keras: Keras) -> Any:
        return getattr(keras.module.optimizers, self.keras_name)


class SgdConfig(OptimizerConfig):
    """Fields of ``keras.optimizers.SGD``."""

    learning_rate: Rate = Field(default=0.01, description="The learning rate.")
    momentum: float = Field(default=0.0, ge=0, le=1, description="Momentum factor.")
    nesterov: bool = Field(default=False, description="Nesterov momentum.")


class Sgd(KerasOptimizer):
    """Stochastic gradient descent: ``keras.optimizers.SGD``."""

    keras_name = "SGD"
    config_model = SgdConfig


class RmspropConfig(OptimizerConfig):
    """Fields of ``keras.optimizers.RMSprop``."""

    rho: Decay = Field(default=0.9, description="Decay of the average of squared gradients.")
    momentum: float = Field(default=0.0, ge=0, description="Momentum factor.")
    epsilon: Strength = Field(default=1e-7, description="Added to the denominator.")
    centered: bool = Field(default=False, description="Divide by the gradients' variance instead of their square.")


class Rmsprop(KerasOptimizer):
    """RMSprop: ``keras.optimizers.RMSprop``."""

    keras_name = "RMSprop"
    config_model = RmspropConfig


class MomentsConfig(OptimizerConfig):
    """Fields of the optimizers that keep two running averages of the gradients."""

    beta_1: Decay = Field(default=0.9, description="Decay of the first average.")
    beta_2: Decay = Field(default=0.999, description="Decay of the second average.")
    epsilon: Strength = Field(default=1e-7, description="Added to the denominator.")


class AdamConfig(MomentsConfig):
    """Fields of ``keras.optimizers.Adam``."""

    amsgrad: bool = Field(default=False, description="The AMSGrad variant.")


class Adam(KerasOptimizer):
    """Adam: ``keras.optimizers.Adam``."""

    keras_name = "Adam"
    config_model = AdamConfig


class AdadeltaConfig(OptimizerConfig):
    """Fields of ``keras.optimizers.Adadelta``."""

    rho: Decay = Field(default=0.95, description="Decay of both averages.")
    epsilon: Strength = Field(default=1e-7, description="Added to the denominator.")


class Adadelta(KerasOptimizer):
    """Adadelta: ``keras.optimizers.Adadelta``."""

    keras_name = "Adadelta"
    config_model = AdadeltaConfig


class AdagradConfig(OptimizerConfig):
    """Fields of ``keras.optimizers.Adagrad``."""

    initial_accumulator_value: Strength = Field(default=0.1, description="The sum of squared gradients begins with.")
    epsilon: Strength = Field(default=1e-7, description="Added to the denominator.")


class Adagrad(KerasOptimizer):
    """Adagrad: ``keras.optimizers.Adagrad``."""

    keras_name = "Adagrad"
    config_model = AdagradConfig


class Adamax(KerasOptimizer):
    """Adamax: ``keras.optimizers.Adamax``."""

    keras_name = "Adamax"
    config_model = MomentsConfig


class Nadam(KerasOptimizer):
    """Nadam: ``keras.optimizers.Nadam``; that of tf_keras is mended."""

    keras_name = "Nadam"
    config_model = MomentsConfig

    def _optimizer_of(self, keras: Keras) -> Any:
        optimizer = super()._optimizer_of(keras)
        return type("Nadam", (SteadyNadam, optimizer), {}) if keras.name == "tf_keras" else optimizer


class FtrlConfig(OptimizerConfig):
    """Fields of ``keras.optimizers.Ftrl``."""

    learning_rate_power: float = Field(default=-0.5, le=0, description="How the rate falls; 0 keeps it fixed.")
    initial_accumulator_value: Strength = Field(default=0.1, description="Accumulators begin with.")
    l1_regularization_strength: Strength = Field(default=0.0, description="L1 penalty.")
    l2_regularization_strength: Strength = Field(default=0.0, description="L2 penalty.")
    l2_shrinkage_regularization_strength: Strength = Field(default=0.0, description="L2 penalty on magnitude only.")
    beta: float = Field(default=0.0, description="Beta of the FTRL paper.")


class Ftrl(KerasOptimizer):
    """Follow the regularized leader: ``keras.optimizers.Ftrl``."""

    keras_name = "Ftrl"
    config_model = FtrlConfig
