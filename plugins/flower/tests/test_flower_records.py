"""Messages of both layouts, as a SuperLink delivers them, answered without a server."""

from __future__ import annotations

import numpy as np
import pytest

from locex.errors import BadParameters, PrivacyRefused

pytestmark = pytest.mark.filterwarnings("ignore:.click.utils:DeprecationWarning")  # typer's, at the import of flwr


@pytest.fixture
def message():
    """Make a message of a type with records, as if it came from a server."""
    from flwr.app import Message, Metadata, RecordDict
    from flwr.app.message import make_message

    def make(message_type, records) -> Message:
        metadata = Metadata(
            run_id=1,
            message_id="a",
            src_node_id=1,
            dst_node_id=2,
            reply_to_message_id="",
            group_id="",
            created_at=2e9,
            ttl=60,
            message_type=message_type,
        )
        return make_message(metadata, RecordDict(records))

    return make


def array_record(**arrays):
    from flwr.app import Array, ArrayRecord

    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def answer(participant, message):
    from locex_flower import records

    return records.answer(participant, message)


def test_records_keep_the_servers_names_and_order(kit, message):
    from flwr.app import ConfigRecord

    node = kit.FakeParticipant()
    arrays = array_record(**{"layer.count": np.array(2.0), "layer.weight": np.ones((2, 3), np.float32)})
    node.weights = {name: node.weights[name] for name in ("layer.count", "layer.weight")}
    node.fit, fit = lambda parameters, config: reverse(fit(parameters, config)), node.fit
    config = ConfigRecord({"server-round": 3, "proximal-mu": 0.1, "b": b"\x00", "t": "x", "on": True, "many": [1, 2]})
    content = answer(node, message("train", {"model": arrays, "how": config})).reply.content

    received, seen = node.fits[0]
    assert {name: array.dtype for name, array in received.items()} == {"layer.count": float, "layer.weight": np.float32}
    assert seen == {
        "server-round": 3, "server_round": 3, "proximal-mu": 0.1, "proximal_mu": 0.1, "b": b"\x00", "t": "x", "on": True
    }  # fmt: skip
    assert list(content["model"]) == ["layer.count", "layer.weight"]
    assert content["metrics"] == {"loss": 0.5, "num-examples": 1}


def reverse(update):
    return type(update)(dict(reversed(update.parameters.items())), update.reference, update.examples, update.metrics)


def test_a_list_of_arrays_reaches_the_participant_in_order_only(kit, message):
    node = kit.FakeParticipant()
    arrays = array_record(**{"0": np.zeros((2, 3), np.float32), "1": np.array(4)})
    content = answer(node, message("train", {"arrays": arrays})).reply.content
    assert isinstance(node.fits[0][0], list)
    assert list(content["arrays"]) == ["0", "1"]
    assert content["arrays"]["1"].numpy() == 5


def test_metrics_that_average_and_those_that_do_not_go_apart(kit, message):
    from flwr.app import ConfigRecord

    node = kit.FakeParticipant()
    node.metrics = {"flag": True, "n": np.int64(3), "text": "a", "raw": b"\x01", "list": [1], "huge": 2**70}
    arrays = array_record(**{"layer.weight": np.zeros((2, 3), np.float32), "layer.count": np.array(4)})
    content = answer(node, message("train", {"arrays": arrays, "config": ConfigRecord()})).reply.content
    assert content["metrics"] == {"loss": 0.5, "flag": 1, "n": 3, "num-examples": 1}
    assert content["config"] == {"text": "a", "raw": b"\x01"}


def test_an_evaluation_carries_a_withheld_loss(kit, message):
    node = kit.FakeParticipant(examples=7)
    node.loss = float("nan")
    content = answer(node, message("evaluate", {"arrays": array_record(w=np.zeros(1))})).reply.content
    assert np.isnan(content["metrics"]["loss"])
    assert content["metrics"]["num-examples"] == 7
    assert not content.array_records


@pytest.mark.parametrize(
    ("message_type", "arrays", "reason"),
    [
        ("query", 1, "internal: this node does not answer messages of type 'query'"),
        ("train", 2, "parameters-refused: one record of arrays is expected, the message has: a0, a1"),
        ("train", 0, "parameters-refused: one record of arrays is expected, the message has: none"),
    ],
)
def test_what_a_node_cannot_answer_is_an_error_reply(kit, message, message_type, arrays, reason):
    content = {f"a{index}": array_record(w=np.zeros(1)) for index in range(arrays)}
    answered = answer(kit.FakeParticipant(), message(message_type, content))
    assert answered.reply.error.reason == reason
    assert answered.fatal is None


def test_secure_aggregation_that_the_job_does_not_name_is_told(kit, message):
    from flwr.app import ConfigRecord

    setup = message("train", {"secaggplus_configs": ConfigRecord({"stage": "setup"})})
    answered = answer(kit.FakeParticipant(), setup)
    assert "this node's job does not name secagg" in answered.reply.error.reason
    assert answered.fatal is None


def test_arrays_are_never_unpickled(kit, message):
    from flwr.app import Array, ArrayRecord

    poisoned = ArrayRecord({"w": Array("float32", (1,), "numpy.ndarray", b"\x80\x04N.")})
    answered = answer(kit.FakeParticipant(), message("train", {"arrays": poisoned}))
    assert answered.reply.error.reason.startswith("parameters-refused: arrays are not in NumPy's format")


@pytest.mark.parametrize(("error", "fatal"), [(BadParameters("bad"), False), (PrivacyRefused("spent"), True)])
def test_only_a_spent_privacy_budget_ends_the_participation(kit, message, error, fatal):
    node = kit.FakeParticipant()
    node.refuse = {1: error}
    answered = answer(node, message("train", {"arrays": array_record(w=np.zeros(1))}))
    assert answered.reply.error.reason == f"{error.error_code}: {error.message}"
    assert answered.fatal is (error if fatal else None)


def test_classic_instructions_inside_records_are_answered_in_kind(kit, message):
    from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.common.typing import Code, EvaluateIns, FitIns, GetParametersIns, GetPropertiesIns
    from flwr.compat.common import recorddict_compat as compat

    node = kit.FakeParticipant(step=2, examples=5)
    node.metrics = {"flag": True, "text": "a", "raw": b"\x01"}
    node.refuse = {2: BadParameters("bad")}
    parameters = ndarrays_to_parameters([np.ones((2, 3), np.float32), np.array(1)])

    def ask(message_type, records):
        return answer(node, message(message_type, records)).reply.content

    fit = compat.recorddict_to_fitres(ask("train", compat.fitins_to_recorddict(FitIns(parameters, {}), True)), True)
    assert (fit.status.code, fit.num_examples) == (Code.OK, 5)
    assert fit.metrics == {"loss": 0.5, "flag": True, "text": "a", "raw": b"\x01"}
    assert [array.flat[0] for array in parameters_to_ndarrays(fit.parameters)] == [3, 3]

    refused = compat.recorddict_to_fitres(ask("train", compat.fitins_to_recorddict(FitIns(parameters, {}), True)), True)
    assert refused.status.code is not Code.OK
    assert refused.status.message == "parameters-refused: bad"

    instruction = compat.evaluateins_to_recorddict(EvaluateIns(parameters, {"config_id": "b"}), True)
    evaluation = compat.recorddict_to_evaluateres(ask("evaluate", instruction))
    assert (evaluation.loss, evaluation.num_examples, evaluation.metrics) == (0.5, 5, {"accuracy": 0.25})
    assert node.evaluations[0][1] == {"config_id": "b"}

    told = ask("get_parameters", compat.getparametersins_to_recorddict(GetParametersIns({})))
    assert len(compat.recorddict_to_getparametersres(told, True).parameters.tensors) == 2
    told = ask("get_properties", compat.getpropertiesins_to_recorddict(GetPropertiesIns({})))
    assert compat.recorddict_to_getpropertiesres(told).properties == {}


@pytest.mark.parametrize(("asked", "rounds", "beyond"), [(3, 2, True), (2, 2, False), (9, None, False)])
def test_more_rounds_than_a_node_takes_part_in_are_recognised(kit, message, asked, rounds, beyond):
    from flwr.app import ConfigRecord

    from locex_flower.records import trains_beyond

    records = {"arrays": array_record(w=np.zeros(1)), "config": ConfigRecord({"server-round": asked})}
    assert trains_beyond(kit.FakeParticipant(rounds=rounds), message("train", records)) is beyond
    assert not trains_beyond(kit.FakeParticipant(rounds=rounds), message("evaluate", records))


@pytest.mark.parametrize(("asked", "beyond"), [({"server_round": 2}, False), ({"server_round": 3}, True), ({}, True)])
def test_a_complete_node_trains_again_in_a_numbered_last_round_alone(kit, message, asked, beyond):
    from flwr.app import ConfigRecord

    from locex_flower.records import trains_beyond

    node = kit.FakeParticipant(rounds=2)
    node.fits = node.evaluations = [None, None]
    assert node.complete
    assert trains_beyond(node, message("train", {"config": ConfigRecord(asked)})) is beyond
