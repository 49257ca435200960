"""A Keras model with its data, alive for the whole training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from locex.api import (
    BuildContext,
    Dataset,
    Differentiable,
    Evaluation,
    FitResult,
    GradientSource,
    ModelSignature,
    Stopped,
)
from locex.artefacts.batches import derived_seed
from locex.errors import DataUnavailable, FormatMismatch, InvalidModel, LocexError
from locex_keras_builder.artefact import load_model
from locex_keras_builder.batches import BatchPlan, DelegatedPlan, Gather, Pace, grouped, in_order
from locex_keras_builder.driver import CallbackDriver
from locex_keras_builder.execution import Execution
from locex_keras_builder.export import export_model
from locex_keras_builder.kerases import limit_threads
from locex_keras_builder.losses import loss_named
from locex_keras_builder.metrics import metrics_named
from locex_keras_builder.options import KerasBuilderConfig
from locex_keras_builder.randomness import reseed, unseed
from locex_keras_builder.rates import LearningRate
from locex_keras_builder.state import load_state, save_state
from locex_keras_builder.tally import Tally
from locex_keras_builder.target import CompileTarget
from locex_keras_builder.variables import assign, named_weights, read

if TYPE_CHECKING:
    from locex.api import Array
    from locex.schemas.job import TrainConfig

_SAMPLE = 8
"""Examples whose outputs tell the loss what the model gives."""


class KerasSession:
    """Implements `locex.api.PrivateSession` for models of either Keras."""

    signature: ModelSignature

    def __init__(self, context: BuildContext, config: KerasBuilderConfig) -> None:
        """Load the model, make optimizer and callback, and read the targets."""
        limit_threads(context.threads)
        self._seed = context.seed
        self._should_stop = context.should_stop
        self._loaded = load_model(context)
        self.signature = self._loaded.signature
        self._keras, self._model = self._loaded.keras, self._loaded.model
        if not self._model.trainable_weights:
            raise InvalidModel("the model has no parameters to train", remedy="upload it with trainable layers")
        self._weights = named_weights(self._model)
        self._place(context, config)
        self._execution = Execution(context, config, self._loaded, self._loss.function)
        self._optimizer = self._execution.optimizer
        self._rate = LearningRate(self._optimizer, context.config.learning_rate)
        target = CompileTarget(self._keras, warn=context.warn)
        callback = context.scheduler(target) if context.scheduler else None
        self._driver = CallbackDriver(callback, self._keras.module.callbacks.Callback, self._model)
        self._epochs = 0
        self._source: GradientSource | None = None

    def _place(self, context: BuildContext, config: KerasBuilderConfig) -> None:
        data = context.data
        for part in (data.train, data.test):
            if len(part.x) != len(part.y):
                raise FormatMismatch(
                    f"{len(part.x)} inputs do not go with {len(part.y)} targets",
                    remedy="check the data and its transformations",
                )
        dtype = self.signature.input.dtype if self.signature.input else "float32"
        known = data.train if len(data.train) else data.test
        outputs = self._sample(known, dtype)
        self._loss = loss_named(config.eval_func, self._keras, self._model, outputs, known.y)
        self._tally = Tally(metrics_named(config.eval_metrics, self._keras, self._loss))
        self._watching = Tally(metrics_named(config.eval_metrics, self._keras, self._loss))
        self._train = Gather(data.train, dtype, self._loss.targets, data.augment)
        self._test = Gather(data.test, dtype, self._loss.targets, None)
        self._example_bytes = int(known.x[:1].nbytes + outputs[:1].nbytes)

    def _sample(self, data: Dataset, dtype: str) -> Array:
        """Return the outputs for a few examples; raise `FormatMismatch` where the model does not take them."""
        takes = self.signature.input.size if self.signature.input else ()
        given = data.x.shape[1:]
        fits = len(takes) == len(given) and all(a in {None, b} for a, b in zip(takes, given, strict=True))
        if not fits:
            raise FormatMismatch(
                f"the model takes inputs of size {list(takes)}, not {list(given)}",
                remedy="add a transformation of the inputs, or choose a model that fits the data",
            )
        count = min(_SAMPLE, len(data))
        x = data.x[:count] if count else np.zeros((1, *given))
        return np.asarray(self._model(np.asarray(x).astype(dtype), training=False), np.float32)

    def differentiable(self) -> Differentiable:
        """Return the model with its trained weights."""

        def loss(outputs: Any, targets: Any) -> Any:
            return self._loss.function(targets, outputs)

        return Differentiable(
            self._keras.name, self._model, self._model.trainable_weights, loss, len(self._train), self._first
        )

    def _first(self) -> tuple[Array, Array]:
        x, y = self._train(np.arange(min(2, len(self._train)))[None], np.random.default_rng(self._seed))
        return x[0], y[0]

    def take_gradients_from(self, source: GradientSource) -> None:
        """Let ``source`` make batches and gradients; raise `InvalidConfiguration` for what does not go with it."""
        self._driver.require_blind()
        self._execution.take_gradients_from(source)
        self._train.augment_one_by_one()
        self._source = source

    def get_parameters(self) -> dict[str, Array]:
        """Return copies of the model's tensors by name, in the order of ``get_weights()``."""
        return read(self._weights)

    def set_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Set every tensor in place; integers take the nearest integer of an average."""
        assign(self._weights, parameters)

    def fit(self, config: TrainConfig, *, server_round: int, proximal_mu: float = 0.0) -> FitResult:
        """Train from the parameters that are set; loss and metrics are the last epoch's, seen while training.

        Once a callback has stopped the training, training data are only evaluated. Raise `Stopped`,
        `DataUnavailable` without training data, and `LocexError` (``training-diverged``) where the loss is not
        finite. ``proximal_mu`` adds FedProx's term (Li et al. 2020), which the loss told does not hold.
        """
        if not len(self._train):
            raise DataUnavailable("there is no training data", remedy="check the node's data source")
        self._rate.follow(config.learning_rate)
        if self._driver.stopped:
            self._evaluate(self._train, config, self._tally)
            return FitResult(self._tally.examples, {"loss": self._tally.loss, **self._tally.metrics()})
        if self._source is None:
            reseed(self._keras, self._model, self._seed, server_round)
        else:  # who knew the draws would see how an example shifts those of all others
            unseed(self._keras, self._model)
        if proximal_mu > 0:
            self._execution.hold_near()
        plan = self._plan(config, server_round)
        generator = np.random.default_rng(derived_seed(self._seed, server_round, len(self._train)))
        logs = self._epochs_of(plan, config, generator, proximal_mu)
        # an average of the weights that the optimizer kept takes their place
        self._optimizer.finalize_variable_values(self._model.trainable_variables)
        return FitResult(self._tally.examples, logs)

    def _plan(self, config: TrainConfig, server_round: int) -> BatchPlan:
        if self._source is not None:
            return DelegatedPlan(self._source, len(self._train), config, seed=self._seed, server_round=server_round)
        return BatchPlan(len(self._train), config, seed=self._seed, server_round=server_round)

    def _epochs_of(
        self, plan: BatchPlan, config: TrainConfig, generator: np.random.Generator, mu: float
    ) -> dict[str, float]:
        logs: dict[str, float] = {}
        self._driver.begin(epochs=config.epochs, steps=plan.steps)
        for epoch in range(config.epochs):
            self._driver.epoch(self._epochs)
            self._epoch(plan, epoch, generator, mu)
            logs = {"loss": self._tally.loss, **self._tally.metrics()} if self._tally.examples else {}
            if self._source is not None:  # one example's loss must not make a round fail: that would show
                logs = {name: value for name, value in logs.items() if np.isfinite(value)}
            if self._driver.validates:
                told = self.evaluate(config)
                logs |= {f"val_{name}": value for name, value in {"loss": told.loss, **told.metrics}.items()}
            self._driver.after_epoch(self._epochs, logs)
            self._epochs += 1
            if self._driver.stopped:
                break
        self._driver.end(logs)
        return logs

    def _epoch(self, plan: BatchPlan, epoch: int, generator: np.random.Generator, mu: float) -> None:
        self._tally.reset()
        pace = Pace(self._example_bytes, single=self._driver.per_batch or self._source is not None)
        steps = 0
        for index in grouped(plan.epoch(epoch), pace.batches):
            if self._should_stop():
                raise Stopped
            start = time.perf_counter()
            x, y = self._train(index, generator)
            losses, outputs = self._driver.step(steps, partial(self._execution.train, x, y, mu))
            if self._source is None and not np.isfinite(losses).all():
                raise _diverged(self._epochs + 1, losses)
            if index.size:
                self._tally.add(losses, outputs, y)
            pace.took(len(index), time.perf_counter() - start)
            steps += len(index)

    def evaluate(self, config: TrainConfig) -> Evaluation:
        """Evaluate on the test data in batches; raise `DataUnavailable` where there is none."""
        if not len(self._test):
            raise DataUnavailable("there is no test data", remedy="check the node's data source")
        self._evaluate(self._test, config, self._watching)
        return Evaluation(self._watching.loss, self._watching.examples, self._watching.metrics())

    def _evaluate(self, data: Gather, config: TrainConfig, tally: Tally) -> None:
        tally.reset()
        pace = Pace(self._example_bytes)
        for index in grouped(in_order(len(data), config.batch_size), pace.batches):
            if self._should_stop():
                raise Stopped
            start = time.perf_counter()
            x, y = data(index, None)
            tally.add(*self._execution.test(x, y), y)
            pace.took(len(index), time.perf_counter() - start)

    def save_state(self, folder: Path) -> None:
        """Write the state of optimizer, learning rate and callback."""
        rest = {"rate": self._rate.state(), "driver": self._driver.state(), "epochs": self._epochs}
        save_state(folder, self._keras, self._optimizer, rest)

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote; raise `LocexError` (``state-incompatible``) if it is of another kind."""
        rest = load_state(folder, self._keras, self._optimizer)
        self._rate.restore(rest["rate"])
        self._driver.restore(rest["driver"])
        self._epochs = rest["epochs"]

    def export(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """Write the artefact, and the further formats asked for."""
        with self._execution.full_precision():
            return export_model(self._loaded, folder, formats)


def _diverged(epoch: int, losses: Array) -> LocexError:
    return LocexError(
        f"the training diverged: a loss of epoch {epoch} is {losses[~np.isfinite(losses)][0]}",
        remedy="lower the learning rate, clip gradients, or check the data for extreme values",
        code="training-diverged",
    )
