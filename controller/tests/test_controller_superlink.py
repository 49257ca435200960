"""The training process over a SuperLink, with nodes of the installed federation plugin."""

import socket

import aiohttp
import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("locex_flower", reason="the nodes of these tests are locex-flower's")

PLAN = {"num_rounds": 2, "min_available_clients": 2, "min_fit_clients": 2, "round_timeout": 60, "wait_timeout": 90}


@pytest.mark.slow
async def test_two_nodes_average_over_a_superlink(training_engine, flower_node, collector_port, tmp_path):
    engine = await training_engine(PLAN, federation="flower-superlink")
    await engine.until("ready")
    for step, examples in ((1, 30), (4, 10)):
        flower_node(collector_port, step, examples, tmp_path / str(step), script="controller_node.py")
    assert await engine.end() == 0
    first, second = engine.of("round")
    assert first["participants"] == second["participants"]
    assert first["evaluation"] == pytest.approx({"loss": 1.75, "accuracy": 0.175})
    trained = load_file(tmp_path / "run" / "checkpoint.safetensors")
    np.testing.assert_array_equal(trained["0"], np.full((2, 3), 3.5, np.float32))
    assert trained["1"] == 4


@pytest.mark.slow
async def test_a_killed_training_goes_on_with_the_same_nodes(training_engine, flower_node, collector_port, tmp_path):
    plan = {**PLAN, "num_rounds": 4, "min_available_clients": 1, "min_fit_clients": 1}
    engine = await training_engine(plan, federation="flower-superlink")
    await engine.until("ready")
    flower_node(collector_port, 1, 10, tmp_path / "node", script="controller_node.py")
    first = await engine.until("round", round=2)
    engine.child.kill()
    await engine.end()
    again = await training_engine(plan, federation="flower-superlink", reported=2)
    assert await again.end() == 0
    rounds = again.of("round")
    assert [one["round"] for one in rounds] == [3, 4]
    assert rounds[0]["participants"] == first["participants"]
    trained = load_file(tmp_path / "run" / "checkpoint.safetensors")
    np.testing.assert_array_equal(trained["0"], np.full((2, 3), 4, np.float32))


async def test_only_the_fleet_is_served(training_engine, collector_port):
    engine = await training_engine(PLAN, federation="flower-superlink")
    await engine.until("ready")
    statuses = {}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{collector_port}") as http:
        for path in ("/v1/fleet/pull-messages", "/v1/control/start-run", "/v1/runtime/acquire-task"):
            headers = {"Content-Type": "application/protobuf", "Accept": "application/protobuf"}
            async with http.post(path, data=b"", headers=headers) as response:
                statuses[path] = response.status
        async with http.get("/docs") as response:
            statuses["/docs"] = response.status
    # The fleet asks for the node's signature; the others do not exist.
    assert list(statuses.values()) == [401, 404, 404, 404]


@pytest.mark.parametrize("federation", ["flower-grpc", "flower-superlink"])
async def test_a_port_in_use_is_named(training_engine, collector_port, federation):
    with socket.create_server(("127.0.0.1", collector_port)):
        engine = await training_engine(PLAN, federation=federation)
        assert await engine.end() == 1
    assert engine.messages[-1]["error"]["message"] == f"port {collector_port} on 127.0.0.1 is in use"
