"""The builder ``sklearn``: an ``SGDClassifier`` in a federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from locex.api import (
    BuildContext,
    Dataset,
    Evaluation,
    FitResult,
    ModelSignature,
    Parameters,
    Stopped,
    TensorSpec,
    TrainingSession,
)
from locex.errors import InvalidModel
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig

if TYPE_CHECKING:
    from locex.api import Array
    from locex.schemas.job import TrainConfig


class SklearnConfig(PluginConfig):
    """What the builder takes of a job."""

    eval_func: Literal["log_loss"] = Field(default="log_loss", description="The loss.")
    eval_metrics: list[Literal["accuracy"]] = Field(default=[], description="Metrics beside the loss.")


class SklearnBuilder:
    """Builds linear classifiers of scikit-learn."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return what the builder takes of a job."""
        return SklearnConfig

    @hookimpl
    def locex_create_builder(self, config: SklearnConfig, context: BuildContext) -> TrainingSession:
        """Return a session over the artefact's weights; raise `InvalidModel` where it is no such file."""
        return SklearnSession(config, context)


class SklearnSession:
    """Implements `locex.api.TrainingSession` over ``SGDClassifier.partial_fit``."""

    def __init__(self, config: SklearnConfig, context: BuildContext) -> None:
        from sklearn.linear_model import SGDClassifier

        try:
            weights = load_file(context.artefact.path)
            classes, features = weights["coef"].shape
        except (SafetensorError, KeyError, ValueError) as error:
            remedy = "upload a safetensors file with coef (classes, features) and intercept (classes,)"
            raise InvalidModel(f"the artefact is no linear model: {error}", remedy=remedy) from error
        self.signature = ModelSignature(TensorSpec((features,), "float64"), TensorSpec((classes,), "float64"))
        self._metrics, self._context, self._labels = config.eval_metrics, context, np.arange(classes)
        self._model = SGDClassifier(loss="log_loss", random_state=context.seed, **context.optimizer(None))
        self._model.partial_fit(np.zeros((classes, features)), self._labels, classes=self._labels)
        self.set_parameters(weights)

    def get_parameters(self) -> Parameters:
        """Return copies."""
        return {"coef": self._model.coef_.copy(), "intercept": self._model.intercept_.copy()}

    def set_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Set the weights."""
        self._model.coef_ = np.array(parameters["coef"], np.float64)
        self._model.intercept_ = np.array(parameters["intercept"], np.float64)

    def fit(self, config: TrainConfig, *, server_round: int, proximal_mu: float = 0.0) -> FitResult:  # noqa: ARG002
        """Train in an order of the round's own; ``proximal_mu`` has no meaning here."""
        data, examples = self._context.data.train, len(self._context.data.train)
        steps = min(config.steps_per_epoch or examples, -(-examples // config.batch_size))
        generator = np.random.default_rng((self._context.seed, server_round))
        for _ in range(config.epochs):
            order = generator.permutation(examples)
            for step in range(steps):
                if self._context.should_stop():
                    raise Stopped
                index = order[step * config.batch_size : (step + 1) * config.batch_size]
                self._model.partial_fit(data.x[index].astype(np.float64), data.y[index])  # the type of its weights
        loss, metrics = self._judge(data)
        return FitResult(min(steps * config.batch_size, examples), {"loss": loss, **metrics})

    def evaluate(self, config: TrainConfig) -> Evaluation:  # noqa: ARG002
        """Evaluate on the test data."""
        loss, metrics = self._judge(self._context.data.test)
        return Evaluation(loss, len(self._context.data.test), metrics)

    def save_state(self, folder: Path) -> None:
        """Write the number of steps, which is all that partial_fit remembers beside the weights."""
        save_file({"t": np.asarray([self._model.t_])}, folder / "sklearn.safetensors")

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote."""
        self._model.t_ = float(load_file(folder / "sklearn.safetensors")["t"][0])

    def export(self, folder: Path, formats: Sequence[str]) -> list[Path]:  # noqa: ARG002
        """Write the weights, which are the artefact."""
        save_file(self.get_parameters(), folder / "model.safetensors")
        return [folder / "model.safetensors"]

    def _judge(self, data: Dataset) -> tuple[float, dict[str, float]]:
        from sklearn.metrics import accuracy_score, log_loss

        scores = self._model.predict_proba(data.x)
        accuracy = {"accuracy": float(accuracy_score(data.y, scores.argmax(1)))} if self._metrics else {}
        return float(log_loss(data.y, scores, labels=self._labels)), accuracy
