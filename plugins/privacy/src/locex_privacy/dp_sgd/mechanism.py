"""The node's half of ``dp-sgd``; a collector has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from locex.api import (
    Array,
    Differentiable,
    PrivacyContext,
    PrivateSession,
    Scalar,
    Stage,
    TrainingSession,
    Update,
)
from locex.errors import DataUnavailable, PrivacyRefused
from locex.schemas.job import TrainConfig, chosen_training
from locex_privacy.accountant import calibrated
from locex_privacy.budget import Budget
from locex_privacy.dp_sgd.config import DpSgdConfig
from locex_privacy.dp_sgd.review import require_opacus
from locex_privacy.dp_sgd.source import FAULT, ClippedGradients, PrivateGradients, Sampling
from locex_privacy.mechanism import Mechanism
from locex_privacy.noise import system_choice, system_normal


class DpSgdMechanism(Mechanism):
    """DP-SGD in the session's own training loop, of which it makes batches and gradients.

    A round's steps are charged before its data is touched: steps of Poisson-sampled Gaussian mechanisms, with the
    neighbouring relation *an example is there, or it is not*. Weights, which are made of private gradients only, then
    leave as they are; loss, metrics and the number of examples do not.
    """

    stage = Stage.TRAIN
    withholds_metrics = True

    def __init__(
        self,
        config: DpSgdConfig,
        context: PrivacyContext,
        normal: Callable[[int], Array] = system_normal,
        choice: Callable[[int, float], Array] = system_choice,
    ) -> None:
        """Take ``normal``, which returns standard normal values, and ``choice``, which samples, from tests only."""
        self._config = config
        self._context = context
        self._budget = Budget(context, config.unit, config.delta, config.max_epsilon)
        self._normal, self._choice = normal, choice
        self._examples = 0
        self._noise_multiplier = config.noise_multiplier or 0.0
        self._source: PrivateGradients | None = None

    def prepare(self, session: TrainingSession) -> None:
        """Take over the session's batches and gradients.

        Raise `PrivacyRefused` for a session, a model or data for which the guarantee would not hold.
        """
        if not isinstance(session, PrivateSession):
            raise PrivacyRefused(
                "the model's builder trains in a way that dp-sgd cannot take over",
                remedy="use a builder whose sessions are a locex.api.PrivateSession, or a mechanism such as dp-fixed",
            )
        if self._context.learned:
            raise PrivacyRefused(
                f"{', '.join(self._context.learned)} learned from the training data: an example would reach the "
                "others' gradients through it",
                remedy="leave the step out, or give it constants that are not made of these data",
            )
        parts = session.differentiable()
        if not parts.examples:
            raise DataUnavailable("there is no training data", remedy="check the node's data source")
        if not self._noise_multiplier:
            self._noise_multiplier = self._calibrated(parts.examples)
        self._examples = parts.examples
        deviation = self._noise_multiplier * self._config.max_grad_norm
        source = PrivateGradients(self._clipped(parts), deviation, self._normal, self._choice)
        session.take_gradients_from(source)
        self._source = source

    def before_fit(self, config: Mapping[str, Scalar]) -> None:
        """Charge the coming round's steps; raise `PrivacyRefused` where they would pass the budget."""
        source = self._prepared()
        source.close()
        sampling = Sampling.of(self._examples, self._training(config))
        self._budget.charge(sampling.event(self._noise_multiplier))
        source.pay(sampling)

    def outgoing(
        self,
        update: Update,
        config: Mapping[str, Scalar],  # noqa: ARG002 -- the Protocol's
    ) -> Update:
        """Return the weights without metrics, as of a number of examples that tells nothing.

        Raise `PrivacyRefused` where the round was not trained with this mechanism's gradients from begin to end.
        """
        if not self._prepared().close():
            raise PrivacyRefused(
                "dp-sgd was asked for an update that its gradients did not make, or not all of them", remedy=FAULT
            )
        return Update(update.parameters, update.reference, self._config.public_examples, metrics={})

    def _training(self, config: Mapping[str, Scalar]) -> TrainConfig:
        return chosen_training(self._context.trainings or [TrainConfig()], config)

    def _prepared(self) -> PrivateGradients:
        if self._source is None:
            raise PrivacyRefused("dp-sgd was not given the session that it protects", remedy=FAULT)
        return self._source

    def _calibrated(self, examples: int) -> float:
        rounds = self._config.rounds or self._context.rounds
        if rounds is None or self._config.target_epsilon is None:
            raise PrivacyRefused(
                "target_epsilon needs the number of planned rounds",
                remedy="give num_rounds in the job, rounds beside target_epsilon, or noise_multiplier instead",
            )
        plan = Sampling.of(examples, self._training({}))
        steps = rounds * plan.epochs * plan.steps
        return calibrated(self._config.target_epsilon, self._config.delta, plan.rate, steps)

    def _clipped(self, parts: Differentiable) -> ClippedGradients:
        norm = self._config.max_grad_norm
        if parts.framework == "torch":
            require_opacus()
            from locex_privacy.dp_sgd.torch_gradients import TorchGradients

            return TorchGradients(parts, norm, ghost=self._config.ghost_clipping)
        if self._config.ghost_clipping:
            raise PrivacyRefused("ghost_clipping is for PyTorch models only", remedy="leave out ghost_clipping")
        if parts.framework == "keras":
            from locex_privacy.dp_sgd.keras_gradients import KerasGradients

            return KerasGradients(parts, norm)
        what = "a SavedModel, which tf_keras trains" if parts.framework == "tf_keras" else f"a {parts.framework} model"
        raise PrivacyRefused(
            f"dp-sgd cannot make private gradients of {what}",
            remedy="upload the model for PyTorch, or as a .keras file of Keras 3",
        )
