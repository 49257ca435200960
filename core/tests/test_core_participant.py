"""When a node's part in a federation is over."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from locex.api import Evaluation, FitResult, Stage
from locex.errors import BadParameters
from locex.jobs.messages import RoundFinished
from locex.schemas.job import JobConfiguration
from locex.worker import participant as module
from locex.worker.checkpoint import Checkpoint

WEIGHTS = [np.zeros(2, np.float32)]
NAN = [np.full(2, np.nan, np.float32)]
JOB = {
    "server_address": "loop:1",
    "model_name": "m",
    "model_version": "1",
    "num_rounds": 3,
    "config": [{"batch_size": 32, "epochs": 2}],
    "optimizer_config": {"optimizer": "sgd"},
}


class Session:
    """Adds one to its weights in each fit."""

    def __init__(self):
        self.weights = {"w": np.zeros(2, np.float32)}

    def get_parameters(self):
        return {name: tensor.copy() for name, tensor in self.weights.items()}

    def set_parameters(self, parameters):
        self.weights = dict(parameters)

    def fit(self, config, *, server_round, proximal_mu=0.0):
        self.weights = {name: tensor + 1 for name, tensor in self.weights.items()}
        return FitResult(5, {"loss": float(self.weights["w"][0])})

    def evaluate(self, config):
        return Evaluation(0.5, 5, {})

    def save_state(self, folder):
        pass

    def load_state(self, folder):
        pass


class Charge:
    """A mechanism that counts what each fit costs."""

    stage = Stage.TRAIN
    withholds_metrics = False

    def __init__(self):
        self.spent = 0

    def before_fit(self, config):
        self.spent += 1

    def incoming(self, parameters, config):
        return parameters

    def outgoing(self, update, config):
        return update

    def state(self):
        return {"spent": self.spent}

    def restore(self, state):
        self.spent = state["spent"]


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the participant sees; a test sets them forward."""
    seen = SimpleNamespace(now=1e9)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: seen.now))
    return seen


@pytest.fixture
def sent():
    return []


@pytest.fixture
def node(clock, tmp_path, sent):
    """Make a participant of three rounds; a second one takes up the first one's checkpoint."""

    def make(charge=None):
        return module.NodeParticipant(
            job=JobConfiguration.model_validate(JOB),
            session=Session(),
            mechanisms=[charge or Charge()],
            checkpoint=Checkpoint(tmp_path / "checkpoint"),
            send=sent.append,
            should_stop=lambda: False,
            max_norm=1e6,
        )

    return make


def rounds(node, numbers):
    for number in numbers:
        node.fit(WEIGHTS, {"server_round": number})
        node.evaluate(WEIGHTS, {"server_round": number})


def test_the_evaluation_of_the_last_round_completes_a_node(node):
    one = node()
    rounds(one, [1, 2])
    one.fit(WEIGHTS, {"server_round": 3})
    assert not one.complete
    one.evaluate(WEIGHTS, {"server_round": 3})
    assert one.complete


def test_a_node_that_only_evaluated_the_last_round_is_complete(node):
    one = node()
    rounds(one, [1, 2])
    one.evaluate(WEIGHTS, {"server_round": 3})
    assert one.complete


def test_without_an_evaluation_a_node_is_complete_after_a_while(node, clock):
    one = node()
    for number in (1, 2, 3):
        clock.now += 100
        assert not one.complete
        one.fit(WEIGHTS, {"server_round": number})
    clock.now += 29
    assert not one.complete
    clock.now += 2
    assert one.complete


def test_a_refused_last_fit_completes_nobody_however_long_ago(node, clock):
    one = node()
    rounds(one, [1, 2])
    with pytest.raises(BadParameters):
        one.fit(NAN, {"server_round": 3})
    clock.now += 1000
    assert not one.complete


def test_a_repeated_last_round_is_a_round_again(node, clock, sent):
    charge = Charge()
    one = node(charge)
    rounds(one, [1, 2])
    one.fit(WEIGHTS, {"server_round": 3})
    clock.now += 100
    one.fit([np.full(2, 7, np.float32)], {"server_round": 3})
    assert not one.complete, "the evaluation is awaited anew"
    assert charge.spent == 4, "every fit costs"
    told = [message.record for message in sent if isinstance(message, RoundFinished)]
    assert (told[-1].round, told[-1].train) == (3, {"loss": 8.0})

    other = Charge()
    restored = node(other)
    assert restored.resume()
    assert other.spent == 4
    np.testing.assert_array_equal(restored.parameters()["w"], [7, 7])
    restored.evaluate(WEIGHTS, {"server_round": 3})
    assert restored.complete


def test_what_the_server_knows_encrypted_only_is_not_told_to_it(node):
    encrypting = Charge()
    encrypting.stage = Stage.ENCRYPT
    one = node(encrypting)
    np.testing.assert_array_equal(one.parameters()["w"], [0, 0])  # every training begins in clear
    one.fit([np.full(2, 7, np.float32)], {"server_round": 1})
    with pytest.raises(BadParameters, match="the server may know them encrypted only"):
        one.parameters()
    np.testing.assert_array_equal(one.global_parameters["w"], [7, 7])
    restored = node(encrypting)
    assert restored.resume()
    with pytest.raises(BadParameters):
        restored.parameters()


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize("act", ["fit", "evaluate"])
def test_no_number_of_a_round_has_encrypted_parameters_told(node, act, number):
    encrypting = Charge()
    encrypting.stage = Stage.ENCRYPT
    one = node(encrypting)
    getattr(one, act)([np.full(2, 7, np.float32)], {"server_round": number})
    with pytest.raises(BadParameters, match="the server may know them encrypted only"):
        one.parameters()


@pytest.mark.parametrize(("stage", "refused"), [(Stage.NOISE, False), (Stage.COMPRESS, True)])
def test_the_bound_of_the_norm_is_that_of_what_noise_left(node, stage, refused):
    """A server whose weights lie just within it would else be told, in a refusal, which way the training went."""

    class Back(Charge):
        def outgoing(self, update, config):
            return replace(update, parameters=update.reference)

    mechanism = Back()
    mechanism.stage = stage
    one = node(mechanism)
    just = [np.full(2, 707106.5, np.float32)]  # the training adds one to each
    if refused:
        with pytest.raises(BadParameters, match="training gave weights"):
            one.fit(just, {"server_round": 1})
    else:
        np.testing.assert_array_equal(one.fit(just, {"server_round": 1}).parameters["w"], just[0])
    assert one.holds_global == refused


@pytest.mark.parametrize("field", ["server_round", "num_rounds"])
@pytest.mark.parametrize("value", ["abc", float("inf"), b"\xff"])
def test_a_round_that_is_no_number_is_refused_and_the_node_goes_on(node, field, value):
    one = node()
    with pytest.raises(BadParameters, match=f"the server sent {field}="):
        one.fit(WEIGHTS, {"server_round": 1} | {field: value})
    one.fit(WEIGHTS, {"server_round": "1"})
    assert one.parameters() is not None
