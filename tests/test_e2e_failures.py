"""What dies in the midst of a training, is stopped, or sends rubbish."""

from __future__ import annotations

import io
import signal
import time
import zipfile

import numpy as np
import psutil
import pytest
from safetensors.numpy import load

LONG = 100  # epochs; a round that takes long enough to be met in its midst
ENDLESS = 10**6
LAST_EVALUATION = 30  # seconds after its last fit for which a node expects an evaluation


def test_a_killed_worker_is_replaced_and_the_federation_completes(house):
    first, second = house.nodes
    house.collect(3)
    for node in house.nodes:
        node.post(house.id, house.job(epochs=LONG))
    first.suspended(house.id, 2).send_signal(signal.SIGKILL)

    record = first.finished(house.id)
    assert record["resumes"] == 1
    assert [one["round"] for one in record["history"]] == [1, 2, 3]
    assert "INTERRUPTED" in first.states(house.id)
    assert second.finished(house.id)["resumes"] == 0
    seen = house.collector.finished(house.id)
    assert [len(one["participants"]) for one in seen["history"]] == [2, 2, 2]
    assert seen["attempts"][0]["round"] == 2


@pytest.mark.slow
def test_a_last_round_that_is_repeated_late_has_every_node_again(house):
    first, second = house.nodes
    house.collect(3)
    first.post(house.id, house.job(epochs=LONG))
    second.post(house.id, house.job())
    worker = first.suspended(house.id, 3)
    second.reach(house.id, lambda record: record["state"] == "WAITING" and len(record["history"]) == 3)
    time.sleep(LAST_EVALUATION + 2)
    worker.kill()

    record = second.finished(house.id)
    assert record["history"][2]["evaluation"]
    assert record["warnings"] == []
    assert first.finished(house.id)["resumes"] == 1
    seen = house.collector.finished(house.id)
    assert [(one["attempt"], len(one["participants"])) for one in seen["history"]] == [(1, 2), (1, 2), (2, 2)]


@pytest.mark.slow
def test_a_killed_service_takes_its_worker_along_and_goes_on_when_restarted(own_house):
    house = own_house
    first, second = house.nodes
    house.collect(3)
    for node in house.nodes:
        node.post(house.id, house.job(epochs=LONG))
    worker = psutil.Process(first.training(house.id, 2)["worker"]["pid"])
    first.kill()
    psutil.wait_procs([worker], timeout=120)
    assert not worker.is_running()

    first.start()
    first.ready()
    record = first.finished(house.id)
    assert record["resumes"] == 1
    assert [one["round"] for one in record["history"]] == [1, 2, 3]
    states = first.states(house.id)
    assert states[states.index("INTERRUPTED") :][1:4] == ["QUEUED", "CONFIGURING", "PREPARING"]
    assert second.finished(house.id)["resumes"] == 0


@pytest.mark.slow
def test_nodes_come_back_to_a_collector_that_was_killed(own_house):
    house = own_house
    house.collect(4)
    for node in house.nodes:
        node.post(house.id, house.job(epochs=LONG))
    house.nodes[0].training(house.id, 3)
    house.collector.kill_with_children()
    for node in house.nodes:
        node.reach(house.id, lambda record: record["state"] == "WAITING")
    house.collector.start()
    house.collector.ready()

    seen = house.collector.finished(house.id)
    records = [node.finished(house.id) for node in house.nodes]
    assert seen["resumes"] == 1
    assert [one["round"] for one in seen["history"]] == [1, 2, 3, 4]
    for node, record in zip(house.nodes, records, strict=True):
        assert [one["round"] for one in record["history"]] == [1, 2, 3, 4]
        assert record["resumes"] == 0
        assert any("retrying" in content.get("reason", "") for content in node.events(house.id, "state"))
    accuracies = [house.accuracy(records, index) for index in range(4)]
    assert accuracies[2] > accuracies[1] - 0.02, accuracies
    assert min(accuracies[2:]) > 0.85


def test_a_stopped_node_leaves_the_others_to_go_on_where_the_minimum_allows(house):
    first, second = house.nodes
    house.collect(2, nodes=1)
    first.post(house.id, house.job(epochs=ENDLESS))
    worker = first.training(house.id, 1)["worker"]["pid"]
    second.post(house.id, house.job())
    second.reach(house.id, lambda record: record["state"] == "WAITING")
    assert first.call("DELETE", f"/job/{house.id}").json()["state"] == "STOPPED"
    assert not psutil.pid_exists(worker)

    assert [one["round"] for one in second.finished(house.id)["history"]] == [1, 2]
    seen = house.collector.finished(house.id)
    assert [one["attempt"] for one in seen["history"]] == [2, 1]
    assert len(seen["attempts"][0]["failures"]) == 1


def test_a_training_without_enough_nodes_fails_and_says_so(house):
    first, second = house.nodes
    house.collect(2, server_conf={"num_rounds": 2, "round_timeout": 150, "wait_timeout": 150, "round_attempts": 1})
    first.post(house.id, house.job(epochs=ENDLESS))
    second.post(house.id, house.job())
    first.training(house.id, 1)
    second.reach(house.id, lambda record: record["round"] == 1)
    assert first.call("DELETE", f"/job/{house.id}").json()["state"] == "STOPPED"

    seen = house.collector.over(house.id)
    assert seen["state"] == "FAILED"
    assert "1 of 2 nodes gave a good result, 2 are needed" in seen["failure"]["message"]
    warnings = second.finished(house.id)["warnings"]
    assert "the server ended the training after round 1 of 2" in warnings
    assert "the server sent no weights after the last fit: the model is this node's own" in warnings


def test_a_node_refuses_poisoned_weights_and_keeps_the_last_good_ones(house, stock_server):
    out = stock_server(house, "poisoned.py")
    node = house.nodes[0]
    node.post(house.id, house.job())
    record = node.finished(house.id)
    assert [one["round"] for one in record["history"] if one["fit_seconds"]] == [1]
    for server_round, reason in ((2, "NaN"), (3, "shape")):
        refused = [text for text in record["warnings"] if f"round {server_round} was refused" in text]
        assert len(refused) == 2  # fit and evaluate
        assert all(reason in text for text in refused)
    with np.load(out) as good, zipfile.ZipFile(io.BytesIO(node.call("GET", f"/job/{house.id}/model").content)) as kept:
        (name,) = (name for name in kept.namelist() if name.endswith(".safetensors"))
        weights = load(kept.read(name))
        for tensor in good.values():
            (mine,) = (one for one in weights.values() if one.shape == tensor.shape)
            np.testing.assert_array_equal(mine, tensor)
