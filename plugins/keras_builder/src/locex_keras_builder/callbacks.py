"""Schedulers by Keras' names: callbacks. One more is one configuration, one class and one entry point."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from locex.errors import InvalidConfiguration
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_keras_builder.lasting import Lasting, LastingEarlyStopping, LastingReduceLROnPlateau, StrictTerminateOnNaN
from locex_keras_builder.names import LESS_IS_BETTER, MEASURES
from locex_keras_builder.target import CompileTarget


class CallbackConfig(PluginConfig):
    """What a user may write for a callback."""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the callback's constructor."""
        return self.model_dump()


class KerasCallback:
    """A scheduler plugin whose configuration has the fields of a class of ``keras.callbacks``."""

    keras_name: ClassVar[str]
    config_model: ClassVar[type[CallbackConfig]]
    lasting: ClassVar[type[Lasting]]

    @hookimpl
    def locex_config_model(self) -> type[CallbackConfig]:
        """Return the callback's fields."""
        return self.config_model

    @hookimpl
    def locex_create_scheduler(self, config: CallbackConfig, optimizer: CompileTarget) -> Any:
        """Return a callback of the target's Keras that is a `PersistentCallback` too."""
        base = getattr(optimizer.keras.module.callbacks, self.keras_name)
        callback = type(self.keras_name, (self.lasting, base), {})
        try:
            return callback(**config.arguments())
        except ValueError as error:
            raise InvalidConfiguration(
                f"Keras refuses the callback's fields: {error}",
                remedy=f"see keras.callbacks.{self.keras_name}",
                errors=[{"path": "/scheduler_config", "message": str(error)}],
            ) from error


class MonitorConfig(CallbackConfig):
    """What every callback that watches a metric takes."""

    monitor: str = Field(default="val_loss", description="Loss or metric; with val_ that of the test data.")
    min_delta: float = Field(default=0, ge=0, description="A smaller change is no improvement.")
    patience: int = Field(default=0, ge=0, description="Epochs without improvement, over rounds, until it acts.")
    verbose: bool = Field(default=False, description="Tell in the job's log what the callback does.")
    mode: Literal["auto", "min", "max"] = Field(
        default="auto", description="Whether less or more is better; auto knows it of every metric of eval_metrics."
    )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments with the mode that ``auto`` means."""
        return {**self.model_dump(), "mode": self._direction()}

    def _direction(self) -> str:
        # tf_keras would watch precision, recall, f1 and (for the plateau) auc in the wrong direction
        measure = MEASURES.get(self.monitor.removeprefix("val_"))
        if self.mode == "auto" and measure is not None:
            return "min" if measure in LESS_IS_BETTER else "max"
        return self.mode


class EarlyStoppingConfig(MonitorConfig):
    """Fields of ``keras.callbacks.EarlyStopping``."""

    baseline: float | None = Field(default=None, description="Waiting starts anew only at values better than this.")
    restore_best_weights: bool = Field(default=False, description="A round ends with the weights of its best epoch.")
    start_from_epoch: int = Field(default=0, ge=0, description="Epochs of the training that it lets pass first.")


class EarlyStopping(KerasCallback):
    """Stop without improvement: ``keras.callbacks.EarlyStopping``."""

    keras_name = "EarlyStopping"
    config_model = EarlyStoppingConfig
    lasting = LastingEarlyStopping


class ReduceLROnPlateauConfig(MonitorConfig):
    """Fields of ``keras.callbacks.ReduceLROnPlateau``."""

    min_delta: float = Field(default=1e-4, ge=0, description="A smaller change is no improvement.")
    patience: int = Field(default=10, ge=0, description="Epochs without improvement, over rounds, until it acts.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="The learning rate is multiplied by this.")
    cooldown: int = Field(default=0, ge=0, description="Epochs after a reduction that are not counted.")
    min_lr: float = Field(default=0.0, ge=0, description="The learning rate never falls below this.")


class ReduceLROnPlateau(KerasCallback):
    """Reduce the rate without improvement: ``keras.callbacks.ReduceLROnPlateau``."""

    keras_name = "ReduceLROnPlateau"
    config_model = ReduceLROnPlateauConfig
    lasting = LastingReduceLROnPlateau


class TerminateOnNaNConfig(CallbackConfig):
    """Fields of ``keras.callbacks.TerminateOnNaN``."""

    raise_error: bool = Field(default=False, description="Keras' own switch; the round fails either way.")

    def arguments(self) -> dict[str, Any]:
        """Return none: tf_keras knows none."""
        return {}


class TerminateOnNaN(KerasCallback):
    """Fail at the first batch whose loss is not finite: ``keras.callbacks.TerminateOnNaN``."""

    keras_name = "TerminateOnNaN"
    config_model = TerminateOnNaNConfig
    lasting = StrictTerminateOnNaN
