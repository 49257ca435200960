"""This node as a federation sees it: fit and evaluate, with the gate before and the mechanisms behind."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from locex.api import (
    Evaluation,
    Incoming,
    Parameters,
    PrivacyMechanism,
    Scalar,
    Stage,
    Stopped,
    TrainingSession,
    Update,
)
from locex.errors import BadParameters, LocexError
from locex.jobs.messages import RoundFinished, StateChanged, Warned
from locex.schemas.job import JobConfiguration, TrainConfig, chosen_training
from locex.schemas.record import JobState, RoundRecord
from locex.worker.checkpoint import Checkpoint
from locex.worker.gate import admit, require_sound

_UNSENDABLE = "training gave weights that cannot be sent"
_LAST_EVALUATION = 30.0  # seconds to wait, after the last fit, for an evaluation that the server may not want


@dataclass(slots=True)
class Progress:
    """How far the node is: the newest round it was asked about (``latest``), trained in and evaluated."""

    latest: int = 0
    fitted: int = 0
    evaluated: int = 0
    rounds: int | None = None
    holds_global: bool = True
    fitted_at: float = field(default_factory=time.monotonic)


class NodeParticipant:
    """Implements `locex.api.Participant` over one session."""

    def __init__(
        self,
        *,
        job: JobConfiguration,
        session: TrainingSession,
        mechanisms: Sequence[PrivacyMechanism],
        checkpoint: Checkpoint,
        send: Callable[[BaseModel], None],
        should_stop: Callable[[], bool],
        max_norm: float,
        keep_global: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``keep_global(round)`` is called while the session holds the global parameters that were just evaluated."""
        self._job = job
        self._session = session
        self._mechanisms = sorted(mechanisms, key=lambda mechanism: mechanism.stage)
        self._checkpoint = checkpoint
        self._send = send
        self._should_stop = should_stop
        self._max_norm = max_norm
        self._keep_global = keep_global
        self._progress = Progress(rounds=job.num_rounds)
        self._record = RoundRecord(round=0)
        self._epsilon: dict[str, float] = {}
        self._state = JobState.PREPARING
        self._global = session.get_parameters()
        self._received = False

    # --- what a federation asks ---------------------------------------------------------------------------------------

    @property
    def rounds(self) -> int | None:
        """The most rounds this node takes part in, where known."""
        return self._progress.rounds

    @property
    def complete(self) -> bool:
        """Whether the last expected round was evaluated, or trained in and not evaluated for a while.

        Until then the server may repeat the round: a refused or lost contribution to it ends nothing.
        """
        progress = self._progress
        if progress.rounds is None:
            return False
        trained = progress.fitted >= progress.rounds
        waited = time.monotonic() - progress.fitted_at
        return progress.evaluated >= progress.rounds or (trained and waited > _LAST_EVALUATION)

    @property
    def stopping(self) -> bool:
        """Whether the job was asked to stop."""
        return self._should_stop()

    def waiting(self, reason: str) -> None:
        """Tell the service that the node waits for the federation."""
        self._enter(JobState.WAITING, reason)

    def parameters(self) -> Parameters:
        """Return the last global parameters: never what local training made of them.

        Raise `BadParameters` where the server may know them encrypted only, which is as soon as anything arrived. The
        server's round numbers are not asked: one that counts from below would have its ciphertexts opened here.
        """
        if self._received and any(mechanism.stage >= Stage.ENCRYPT for mechanism in self._mechanisms):
            raise BadParameters(
                "the parameters are not told: the server may know them encrypted only",
                remedy="let the server go on from its own checkpoint, or start a new training",
            )
        return self._global

    def fit(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Update:
        """Train one round and return what may be sent."""
        server_round = self._begin(JobState.TRAINING, config, self._progress.fitted + 1)
        try:
            admitted = self._admit(parameters, config)
            for mechanism in self._mechanisms:
                mechanism.before_fit(config)
            started = time.monotonic()
            update = self._train(admitted, config, server_round)
            self._record.fit_seconds = time.monotonic() - started
            self._progress.fitted, self._progress.fitted_at = server_round, time.monotonic()
            self._finish_round()
        except LocexError as error:
            self._send(Warned(text=f"round {server_round} was refused: {error}"))
            raise
        finally:
            self._enter(JobState.WAITING, "")
        return update

    def evaluate(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Evaluation:
        """Evaluate global parameters; under mechanisms that withhold them, loss and metrics stay here."""
        server_round = self._begin(JobState.EVALUATING, config, self._progress.fitted)
        try:
            admitted = self._admit(parameters, config)
            started = time.monotonic()
            self._session.set_parameters(admitted)
            result = self._session.evaluate(self._train_config(config))
            self._record.evaluate_seconds = time.monotonic() - started
            self._record.evaluation = {"loss": result.loss, **result.metrics}
            self._global, self._progress.holds_global = admitted, True
            self._progress.evaluated = server_round
            self._finish_round()
            self._keep_global(server_round)
        except LocexError as error:
            self._send(Warned(text=f"evaluation of round {server_round} was refused: {error}"))
            raise
        finally:
            self._enter(JobState.WAITING, "")
        if any(mechanism.withholds_metrics for mechanism in self._mechanisms):
            return Evaluation(loss=math.nan, examples=1, metrics={})
        return result

    # --- what the worker asks -----------------------------------------------------------------------------------------

    @property
    def mechanisms(self) -> Sequence[PrivacyMechanism]:
        """The privacy mechanisms in the order in which they act on what leaves."""
        return self._mechanisms

    def resume(self) -> bool:
        """Take up the last checkpoint, if there is one."""
        restored = self._checkpoint.load(self._session)
        if restored is None:
            return False
        parameters, content = restored
        self._global = admit(parameters, self._global, max_norm=math.inf)
        self._received = True
        self._session.set_parameters(self._global)
        self._progress.latest = self._progress.fitted = int(content["round"])
        self._progress.evaluated = int(content["evaluated"])
        self._progress.rounds = content["rounds"]
        self._epsilon |= content["epsilon"]
        for mechanism, state in zip(self._mechanisms, content["mechanisms"], strict=True):
            mechanism.restore(state)
        return True

    def epsilon_spent(self, unit: str, epsilon: float) -> None:
        """Note what a mechanism spent so far."""
        self._epsilon[unit] = epsilon

    @property
    def ended_early(self) -> bool:
        """Whether the server ended the training before the expected number of rounds."""
        return self._progress.rounds is not None and self._progress.latest < self._progress.rounds

    @property
    def global_parameters(self) -> Parameters:
        """The last global parameters, which need not be for the server."""
        return self._global

    @property
    def holds_global(self) -> bool:
        """Whether the session holds global weights, not those of this node's last fit."""
        return self._progress.holds_global

    # --- inside -------------------------------------------------------------------------------------------------------

    def _begin(self, state: JobState, config: Mapping[str, Scalar], counted: int) -> int:
        if self.stopping:
            raise Stopped
        self._received = True
        server_round = _whole(config, "server_round") or counted
        if rounds := _whole(config, "num_rounds"):
            self._progress.rounds = min(rounds, self._job.num_rounds or rounds)
        if server_round != self._record.round:
            self._record = RoundRecord(round=server_round)
        self._progress.latest = max(self._progress.latest, server_round)
        self._enter(state, "")
        return server_round

    def _admit(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Parameters:
        for mechanism in reversed(self._mechanisms):
            parameters = mechanism.incoming(parameters, config)
        return admit(parameters, self._global, max_norm=self._max_norm)

    def _train(self, admitted: Parameters, config: Mapping[str, Scalar], server_round: int) -> Update:
        self._session.set_parameters(admitted)
        self._global, self._progress.holds_global = admitted, False
        proximal_mu = float(config.get("proximal_mu", 0.0) or 0.0)
        try:
            result = self._session.fit(self._train_config(config), server_round=server_round, proximal_mu=proximal_mu)
            trained = self._session.get_parameters()
            require_sound(trained, _UNSENDABLE, max_norm=math.inf)
            update = Update(trained, admitted, result.examples, dict(result.metrics))
            # The norm is held against its bound behind the noise: beside weights just within it, which a server can
            # send, a refusal would tell without any noise which way the training went.
            update = _made(update, config, [one for one in self._mechanisms if one.stage <= Stage.NOISE])
            require_sound(update.parameters, _UNSENDABLE, max_norm=self._max_norm)
        except LocexError:
            self._session.set_parameters(admitted)
            self._progress.holds_global = True
            raise
        self._record.examples = result.examples
        self._record.train = dict(result.metrics)
        update = _made(update, config, [one for one in self._mechanisms if one.stage > Stage.NOISE])
        client = self._job.client_type_id
        return replace(update, metrics=update.metrics | {"client_type_id": client}) if client else update

    def _train_config(self, config: Mapping[str, Scalar]) -> TrainConfig:
        return chosen_training(self._job.config, config)

    def _finish_round(self) -> None:
        self._record.epsilon = dict(self._epsilon)
        content: dict[str, Any] = {
            "round": self._progress.latest,
            "evaluated": self._progress.evaluated,
            "rounds": self._progress.rounds,
            "mechanisms": [mechanism.state() for mechanism in self._mechanisms],
            "epsilon": self._epsilon,
        }
        self._checkpoint.save(self._session, self._global, content)
        self._send(RoundFinished(record=self._record, rounds=self._progress.rounds))

    def _enter(self, state: JobState, reason: str) -> None:
        if state is not self._state or reason:
            self._state = state
            self._send(StateChanged(state=state, reason=reason))


def _made(update: Update, config: Mapping[str, Scalar], mechanisms: Sequence[PrivacyMechanism]) -> Update:
    """Return what mechanisms make of an update."""
    for mechanism in mechanisms:
        update = mechanism.outgoing(update, config)
    return update


def _whole(config: Mapping[str, Scalar], name: str) -> int | None:
    """Return a whole number that the server sent, or None; raise `BadParameters` for what is none."""
    told = config.get(name)
    try:
        return None if told is None else int(told)
    except (ValueError, OverflowError):
        raise BadParameters(f"the server sent {name}={told!r}, which is no whole number") from None
