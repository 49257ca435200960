"""The training process over the classic wire, with real Flower clients."""

import json
import os
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from locex.processes.child import Child, python
from locex_controller.training.checkpoint import Checkpoint, write_checkpoint

TWO = {"num_rounds": 2, "min_available_clients": 2, "min_fit_clients": 2, "round_timeout": 30, "wait_timeout": 60}


def weights(folder):
    tensors = load_file(folder / "run" / "checkpoint.safetensors")
    return [tensors["0"], tensors["1"]]


async def test_two_nodes_average_weighted_by_examples(training_engine, flower_node, collector_port, tmp_path):
    engine = await training_engine(TWO, fit_config={"config_id": "long", "epochs": 2})
    nodes = [flower_node(collector_port, 1, 30), flower_node(collector_port, 4, 10)]
    assert await engine.end() == 0
    assert engine.messages[-1] == {"kind": "finished"}
    first, second = engine.of("round")
    assert (first["round"], second["round"]) == (1, 2)
    assert len(first["participants"]) == 2
    assert first["failures"] == {}
    assert first["examples"] == 40
    assert first["train"] == {"loss": 1.75}
    assert first["evaluation"] == pytest.approx({"loss": 1.75, "accuracy": 0.175})
    floats, count = weights(tmp_path)
    np.testing.assert_array_equal(floats, np.full((2, 3), 3.5, np.float32))
    # An integer buffer is rounded to its own type in every round: 1.75 → 2, 3.75 → 4.
    assert count == 4
    assert count.dtype == np.int64
    told = [json.loads(line) for line in nodes[0].communicate(timeout=20)[0].splitlines()]
    assert told[0] == {"config_id": "long", "epochs": 2, "server_round": 1, "num_rounds": 2, "fit_clients": 2}
    assert [one["server_round"] for one in told] == [1, 2]


async def test_bad_nodes_are_failures_of_their_round_only(training_engine, flower_node, collector_port, tmp_path):
    engine = await training_engine({**TWO, "num_rounds": 5, "min_fit_clients": 1})
    flower_node(collector_port, 1, 10)
    bad = flower_node(collector_port, 100, 10, "nan@1", "shape@2", "raise@3", "withhold@4", "die@5")
    assert await engine.end() == 0
    nan, shape, raised, good, died = engine.of("round")
    assert list(nan["failures"].values()) == ["contribution refused: tensor 0 is not finite"]
    assert list(shape["failures"].values()) == [
        "contribution refused: tensor 0 has shape [1, 3], the model's has [2, 3]"
    ]
    gone = ["it disconnected or did not answer in time"]
    assert list(raised["failures"].values()) == list(died["failures"].values()) == gone
    assert [len(one["participants"]) for one in engine.of("round")] == [1, 1, 1, 2, 1]
    # Both nodes count in round 4 only; the withheld loss is left out of that round's average.
    np.testing.assert_array_equal(weights(tmp_path)[0], np.full((2, 3), 4 + 50.5, np.float32))
    assert good["evaluation"]["loss"] == 1
    assert bad.wait(20) == -signal.SIGKILL


async def test_a_round_without_enough_results_fails_the_training(training_engine, flower_node, collector_port):
    engine = await training_engine({**TWO, "num_rounds": 1, "min_available_clients": 1, "min_fit_clients": 1})
    flower_node(collector_port, 1, 10, "nan")
    assert await engine.end() == 1
    assert len(engine.of("attempt")) == 3
    failed = engine.messages[-1]["error"]
    assert failed["code"] == "federation-lost"
    assert "round 1 failed 3 times" in failed["message"]
    assert failed["errors"][0]["message"] == "contribution refused: tensor 0 is not finite"


@pytest.mark.slow
async def test_a_killed_training_goes_on_with_the_rounds_that_are_left(
    training_engine, flower_node, collector_port, tmp_path
):
    plan = {**TWO, "num_rounds": 4, "min_available_clients": 1, "min_fit_clients": 1}
    engine = await training_engine(plan)
    node = flower_node(collector_port, 1, 10, "pause")
    await engine.until("round", round=2)
    engine.child.kill()  # as if it had died before it could tell of round 2
    await engine.end()
    again = await training_engine(plan, reported=1)
    assert await again.end() == 0
    told = again.of("round")
    assert [one["round"] for one in told] == [2, 3, 4]
    assert (len(told[0]["participants"]), told[0]["examples"], told[0]["evaluation"]["loss"]) == (1, 10, 1)
    np.testing.assert_array_equal(weights(tmp_path)[0], np.full((2, 3), 4, np.float32))
    told = [json.loads(line)["server_round"] for line in node.communicate(timeout=20)[0].splitlines()]
    assert told[-2:] == [3, 4]


async def test_stop_ends_the_training_and_its_nodes(training_engine, flower_node, collector_port):
    engine = await training_engine({**TWO, "num_rounds": 1000, "min_available_clients": 1, "min_fit_clients": 1})
    node = flower_node(collector_port, 1, 10)
    await engine.until("round")
    await engine.child.send({"kind": "stop"})
    assert await engine.end() == 0
    assert engine.messages[-1] == {"kind": "stopped"}
    assert node.wait(20) == 0


async def test_waiting_ends_in_a_named_failure(training_engine):
    engine = await training_engine({**TWO, "wait_timeout": 0.3})
    assert await engine.end() == 1
    assert engine.of("state")[0] == {"kind": "state", "state": "WAITING", "nodes": 0, "needed": 2}
    assert engine.messages[-1]["error"]["message"] == "0 of 2 nodes connected within 0.3 s"


async def test_after_the_last_round_nobody_is_waited_for(training_engine, tmp_path):
    (tmp_path / "run").mkdir()
    last = Checkpoint(2, [], [np.zeros(1)], {}, {"round": 2, "examples": 10})
    write_checkpoint(tmp_path / "run", last)
    engine = await training_engine(TWO, reported=1)
    assert await engine.end() == 0
    assert [(one["round"], one["examples"]) for one in engine.of("round")] == [(2, 10)]


async def test_an_unknown_aggregation_lists_the_installed(training_engine):
    engine = await training_engine(TWO, aggregation={"name": "median"})
    assert await engine.end() == 1
    assert "fedavg" in engine.messages[-1]["error"]["message"]


async def test_the_process_ends_with_its_parent(tmp_path, collector_port):
    child = await Child.start(python("locex_controller.training"))
    await child.send({"training_id": "t", "port": collector_port, "folder": str(tmp_path)})
    assert (await child.receive())["kind"] == "ready"
    child._process.stdin.close()
    assert await child.wait() == 1
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
