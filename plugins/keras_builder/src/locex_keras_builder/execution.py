"""How a session computes: optimizer, clipping, XLA, mixed precision; what this machine cannot do falls back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from locex.api import BuildContext
from locex.errors import InvalidConfiguration
from locex_keras_builder.kerases import import_tensorflow
from locex_keras_builder.model import LoadedModel
from locex_keras_builder.options import KerasBuilderConfig
from locex_keras_builder.precision import MixedPrecision
from locex_keras_builder.steps import Clipping, Steps
from locex_keras_builder.target import CompileTarget

if TYPE_CHECKING:
    from locex.api import Array, GradientSource

tf = import_tensorflow()


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
        self._source: GradientSource | None = None

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
        """See `Steps.train`; options that fail at the first step are given up with a warning.

        Gradients that a source makes are those of one batch, which may be empty.
        """
        if self._source is not None:
            return self._train_by(self._source, x, y, proximal_mu)
        while not self._proven and (self._jit or self._mixed):
            try:
                result = self._steps.train(x, y, proximal_mu)
            except Exception as error:  # noqa: BLE001 -- each kernel that is missing raises in its own way
                self._fall_back(error)
            else:
                self._proven = True
                return result
        return self._steps.train(x, y, proximal_mu)

    def take_gradients_from(self, source: GradientSource) -> None:
        """Leave gradients to ``source``; raise `InvalidConfiguration` for options that do not go with it."""
        for option, chosen in (("mixed_precision", self._mixed is not None), ("compile", self._jit)):
            if chosen:
                message = f"{option} does not go with private gradients"
                raise InvalidConfiguration(
                    message,
                    remedy=f"leave out {option}, and jit_compile of the optimizer",
                    errors=[{"path": f"/builder/{option}", "message": message}],
                )
        self._source = source

    def _train_by(self, source: GradientSource, x: Array, y: Array, proximal_mu: float) -> tuple[Array, Any]:
        if not x.shape[1]:
            self._steps.descend(source.gradients_of_nothing(), proximal_mu)
            return np.zeros(1), None
        loss, outputs, gradients = source.gradients(x[0], y[0])
        penalties = self._steps.descend(gradients, proximal_mu)
        return np.asarray([float(loss) + penalties]), tf.expand_dims(outputs, 0)

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
