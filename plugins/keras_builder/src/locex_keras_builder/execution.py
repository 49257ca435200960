"""How a session computes: optimizer, clipping, XLA, mixed precision; what this machine cannot do falls back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from locex.api import BuildContext
from locex_keras_builder.model import LoadedModel
from locex_keras_builder.options import KerasBuilderConfig
from locex_keras_builder.precision import MixedPrecision
from locex_keras_builder.steps import Clipping, Steps
from locex_keras_builder.target import CompileTarget

if TYPE_CHECKING:
    from locex.api import Array


class Execution:
    """Runs a model's steps. The first training step shows whether XLA and mixed precision work here."""

    def __init__(
        self, context: BuildContext, config: KerasBuilderConfig, loaded: LoadedModel, loss: Callable[..., Any]
    ) -> None:
        """Make the optimizer, and set the options that the model's Keras has."""
        keras, model = loaded.keras, loaded.model
        self._warn = context.warn
        self._mixed = self._precision(loaded, config.mixed_precision)
        target = CompileTarget(keras, warn=context.warn)
        optimizer = context.optimizer(target)
        if self._mixed and config.mixed_precision == "float16":
            optimizer = keras.module.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer=optimizer)
        optimizer.build(model.trainable_variables)
        self.optimizer = optimizer
        self._steps = Steps(
            keras, model, loss, optimizer, Clipping(config.gradient_clip_norm, config.gradient_clip_value)
        )
        self._jit = bool(config.compile if target.jit_compile is None else target.jit_compile)
        self._steps.compile(jit=self._jit)
        self._proven = False

    def _precision(self, loaded: LoadedModel, dtype: str | None) -> MixedPrecision | None:
        if dtype is None:
            return None
        if loaded.keras.name == "tf_keras":
            self._warn("mixed_precision was ignored: a SavedModel computes as it was saved")
            return None
        return MixedPrecision(loaded.keras, loaded.model, dtype)

    def hold_near(self) -> None:
        """See `Steps.hold_near`."""
        self._steps.hold_near()

    def train(self, x: Array, y: Array, proximal_mu: float) -> tuple[Array, Any]:
        """See `Steps.train`; options that fail at the first step are given up with a warning."""
        while not self._proven and (self._jit or self._mixed):
            try:
                result = self._steps.train(x, y, proximal_mu)
            except Exception as error:  # noqa: BLE001 -- each kernel that is missing raises in its own way
                self._fall_back(error)
            else:
                self._proven = True
                return result
        return self._steps.train(x, y, proximal_mu)

    def _fall_back(self, error: Exception) -> None:
        reason = str(error).strip().partition("\n")[0][:300]
        if self._jit:
            self._warn(f"compile was given up: XLA cannot compile this model's step here ({reason})")
            self._jit = False
        elif self._mixed:
            self._warn(f"mixed_precision was given up: this machine cannot train with it ({reason})")
            self._mixed.undo()
            self._mixed = None
        self._steps.compile(jit=self._jit)

    def test(self, x: Array, y: Array) -> tuple[Array, Any]:
        """See `Steps.test`."""
        return self._steps.test(x, y)

    def full_precision(self) -> AbstractContextManager[None]:
        """Compute as the model was saved, inside."""
        return self._mixed.paused() if self._mixed else nullcontext()
