"""Secure aggregation in the training process, with nodes of the installed federation plugin."""

import json
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from locex.errors import InvalidConfiguration
from locex_controller.secagg import SecAggConfig, SecureSums, secure_sum
from locex_controller.training.spec import TrainingSpec

pytest.importorskip("locex_flower", reason="the nodes of these tests are locex-flower's")

FIELDS = {"max_weight": 100, "reconstruction_threshold": 0.5}
PLAN = {"num_rounds": 2, "min_available_clients": 3, "min_fit_clients": 2, "round_timeout": 60, "wait_timeout": 90}
NODES = {1: 30, 4: 10, 2: 60}  # examples by step
STEP = (2 * SecAggConfig().clipping_range + 8) / (2**22 / 100)  # of one example; docs/privacy/secagg.md derives it


@pytest.fixture
def secure(training_engine, flower_node, collector_port, tmp_path):
    """Start a training with secagg, and its nodes: ``await secure(plan, faults by step)``."""

    async def start(plan=PLAN, faults=None, nodes=NODES, **fields):
        fields = {**FIELDS, **fields}
        engine = await training_engine(plan, federation="flower-superlink", mechanisms=chosen(fields))
        await engine.until("ready")
        engine.nodes = {}
        for step, examples in nodes.items():
            told = [faults[step]] if faults and step in faults else []
            folder = tmp_path / str(step)
            arguments = (folder, json.dumps(fields), *told)
            script = "controller_secagg_node.py"
            engine.nodes[step] = flower_node(collector_port, step, examples, *arguments, script=script)
        return engine

    return start


def chosen(fields, **others):
    return [{"name": "secagg", "config": fields}, *({"name": name, "config": own} for name, own in others.items())]


def averages(*rounds):
    """Return the plain averages after rounds of these steps."""
    return sum(sum(step * NODES[step] for step in steps) / sum(NODES[step] for step in steps) for steps in rounds)


def allowed(*rounds):
    return sum(len(steps) * STEP / sum(NODES[step] for step in steps) for steps in rounds)


def weights(folder):
    return load_file(folder / "run" / "checkpoint.safetensors")


@pytest.mark.slow
async def test_three_nodes_average_weighted_and_unseen(secure, tmp_path):
    engine = await secure()
    assert await engine.end() == 0, engine.messages
    first, second = engine.of("round")
    assert len(first["participants"]) == len(second["participants"]) == 3
    assert first["examples"] == 100
    assert first["train"] == {"loss": pytest.approx(averages(NODES))}
    assert first["evaluation"] == {"loss": pytest.approx(averages(NODES))}
    np.testing.assert_allclose(weights(tmp_path)["0"], averages(NODES, NODES), rtol=0, atol=allowed(NODES, NODES))
    assert weights(tmp_path)["1"] == 4  # 1.9 and 3.9, rounded in each round
    assert weights(tmp_path)["1"].shape == ()


@pytest.mark.slow
async def test_a_node_killed_while_it_trains_costs_its_share_alone(secure, tmp_path):
    plan = {**PLAN, "round_timeout": 8}
    engine = await secure(plan, {4: "fit@1"})
    assert await engine.end() == 0, engine.messages
    first, second = engine.of("round")
    assert (first["attempt"], len(first["participants"]), first["examples"]) == (1, 2, 90)
    assert list(first["failures"].values()) == ["no answer within 8 s"]
    # The node is still asked for its keys in the second round, and left out when they do not come.
    assert (second["attempt"], len(second["participants"])) == (1, 2)
    left = (1, 2)
    np.testing.assert_allclose(weights(tmp_path)["0"], averages(left, left), rtol=0, atol=allowed(left, left))
    assert engine.nodes[4].wait(20) == -signal.SIGKILL


@pytest.mark.slow
async def test_below_the_threshold_a_round_is_tried_again_and_then_fails(secure):
    plan = {**PLAN, "round_timeout": 10, "round_attempts": 2, "min_available_clients": 2}
    nodes = {step: NODES[step] for step in (1, 4)}
    engine = await secure(plan, {4: "fit@1"}, nodes)
    assert await engine.end() == 1
    reasons = sorted(engine.of("attempt")[0]["failures"].values())
    assert reasons == [
        "its update was not summed: fewer nodes were left than reconstruction_threshold asks for",
        "no answer within 10 s",
    ]
    failed = engine.messages[-1]["error"]
    assert failed["code"] == "federation-lost"


@pytest.mark.slow
async def test_more_nodes_than_the_modulus_can_sum_end_the_training(secure):
    plan = {**PLAN, "num_rounds": 50, "min_available_clients": 2}  # the third node may come late
    engine = await secure(plan, quantization_range=2**31 - 1)
    assert await engine.end() == 1
    assert "3 nodes are more than secagg can sum" in engine.messages[-1]["error"]["message"]


@pytest.mark.slow
async def test_a_killed_training_goes_on_with_the_rounds_that_are_left(secure, training_engine, tmp_path):
    plan = {**PLAN, "num_rounds": 3}
    engine = await secure(plan)
    await engine.until("round", round=1)
    engine.child.kill()
    await engine.end()
    again = await training_engine(plan, federation="flower-superlink", mechanisms=chosen(FIELDS), reported=1)
    assert await again.end() == 0, again.messages
    assert [one["round"] for one in again.of("round")][-1] == 3
    rounds = [NODES] * 3
    np.testing.assert_allclose(weights(tmp_path)["0"], averages(*rounds), rtol=0, atol=allowed(*rounds))


@pytest.mark.parametrize(
    ("changes", "others", "told", "path"),
    [
        ({"federation": "flower-grpc"}, {}, "flower-grpc has one", "/federation"),
        ({"plan": {"min_fit_clients": 1}}, {}, "a secure sum needs 2 nodes", "/strategy_conf/min_fit_clients"),
        (
            {"plan": {"min_fit_clients": 1025}},
            {},
            "1025 nodes is more than secagg can sum",
            "/privacy-mechanisms/secagg/quantization_range",
        ),
        ({}, {"compression": {}}, "compressed updates", "/privacy-mechanisms/compression"),
        ({}, {"dp-adaptive": {}}, "its clipping norm", "/privacy-mechanisms/dp-adaptive"),
        (
            {},
            {"dp-fixed": {"server_side_noising": True}},
            "dp-fixed's noise here",
            "/privacy-mechanisms/dp-fixed/server_side_noising",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes, others, told, path):
    mechanisms = chosen(FIELDS, **others)
    fields = {"federation": "flower-superlink", "plan": PLAN, "mechanisms": mechanisms, **changes}
    spec = TrainingSpec(training_id="t", port=1, folder="x", **fields)
    with pytest.raises(InvalidConfiguration, match=told) as refused:
        secure_sum(spec, [SecureSums(SecAggConfig(**FIELDS))])
    assert refused.value.errors[0]["path"] == path


async def test_another_wire_is_refused_before_a_port_is_opened(training_engine):
    engine = await training_engine(PLAN, federation="flower-grpc", mechanisms=chosen(FIELDS))
    assert await engine.end() == 1
    error = engine.messages[-1]["error"]
    assert error["code"] == "configuration-invalid"
    assert "flower-grpc has one" in error["message"]


async def test_parameters_that_cannot_work_are_named(training_engine):
    fields = {"modulus_range": 3 * 2**20}
    engine = await training_engine(PLAN, federation="flower-superlink", mechanisms=chosen(fields))
    assert await engine.end() == 1
    assert "modulus_range must be a power of two" in engine.messages[-1]["error"]["message"]
