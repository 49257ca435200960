"""The main job: two nodes with different data train one model, over REST, on every wire."""

from __future__ import annotations

import io
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load

ROUNDS = 5


@pytest.fixture(scope="module", params=["flower-grpc", "flower-superlink"])
def trained(shared_house, request):
    """A training that both nodes and the collector have finished."""
    house = shared_house
    house.collect(ROUNDS, federation=request.param)
    for node in house.nodes:
        job = house.job(federation=request.param, client_type_id=f"client of {node.name}", colour="blue")
        accepted = node.post(house.id, job)
        assert accepted["warnings"] == ["unknown key 'colour' was ignored"]
    yield SimpleNamespace(
        house=house,
        id=house.id,
        records=[node.finished(house.id) for node in house.nodes],
        seen=house.collector.finished(house.id),
    )
    house.clear()


def test_two_nodes_learn_what_neither_has_alone(trained):
    nodes, seen = trained.house.nodes, trained.seen
    accuracy = trained.house.accuracy(trained.records)
    assert accuracy >= 0.85
    for node, record in zip(nodes, trained.records, strict=True):
        examples = len(np.load(node.data / "y_train.npy"))
        assert [one["round"] for one in record["history"]] == list(range(1, ROUNDS + 1))
        for one in record["history"]:
            assert one["examples"] == examples
            assert {"loss", "accuracy"} <= one["train"].keys() & one["evaluation"].keys()
            assert one["fit_seconds"] > 0
            assert one["evaluate_seconds"] > 0
        assert {"locex-flower", "locex-torch-builder", "locex-transforms"} <= record["plugins"].keys()
        assert (record["round"], record["rounds"], record["resumes"]) == (ROUNDS, ROUNDS, 0)
        assert record["client_type_id"] == f"client of {node.name}"
        assert node.states(trained.id)[:4] == ["QUEUED", "CONFIGURING", "PREPARING", "WAITING"]

    for one in seen["history"]:
        assert sorted(one["clients"]) == one["participants"]
        assert sorted(one["clients"].values()) == ["client of node1", "client of node2"]
    assert [one["attempt"] for one in seen["history"]] == [1] * ROUNDS
    assert seen["history"][-1]["evaluation"]["accuracy"] == pytest.approx(accuracy, abs=1e-4)


def test_both_nodes_keep_the_same_model_with_its_lineage(trained):
    contents = [node.call("GET", f"/job/{trained.id}/model").content for node in trained.house.nodes]
    collected = load(trained.house.collector.call("GET", f"/job/{trained.id}/model").content)
    for content in contents:
        kept = weights_of(content)
        assert len(kept) == len(collected)
        for tensor in collected.values():  # named by their order on a wire without names; no two have one shape
            (mine,) = (one for one in kept.values() if one.shape == tensor.shape)
            np.testing.assert_array_equal(mine, tensor)
    for node, record, content in zip(trained.house.nodes, trained.records, contents, strict=True):
        name, version = record["model"]["model_name"], record["model"]["model_version"]
        assert node.call("GET", f"/model/{name}/{version}/").content == content
        (stored,) = (model for model in node.call("GET", "/model/").json() if model["model_version"] == version)
        lineage = stored["lineage"]
        assert (lineage["training_id"], lineage["run_id"], lineage["round"]) == (trained.id, record["run_id"], ROUNDS)
        assert lineage["parent"] == {"model_name": "digits", "model_version": "1"}
        assert lineage["metrics"] == record["history"][-1]["evaluation"]
        assert lineage["plugins"] == record["plugins"]


@pytest.mark.parametrize("trained", ["flower-grpc"], indirect=True)
def test_a_trained_model_is_where_another_job_begins(trained):
    house, node, before = trained.house, trained.house.nodes[0], trained.records[0]
    house.collect(1, nodes=1, model_name=None, model_version=None)  # so it asks the node for the weights
    named = {key: before["model"][key] for key in ("model_name", "model_version")}
    node.post(house.id, house.job(**named, optimizer_config={"optimizer": "sgd", "lr": 1e-12}))
    record = node.finished(house.id)
    assert record["history"][0]["evaluation"] == pytest.approx(before["history"][-1]["evaluation"], rel=1e-5)


def test_a_stock_server_drives_nodes_unchanged(house, stock_server):
    out = stock_server(house, "fedavg.py", 3)
    for node in house.nodes:
        node.post(house.id, house.job())
    records = [node.finished(house.id) for node in house.nodes]
    assert [[one["round"] for one in record["history"]] for record in records] == [[1, 2, 3]] * 2
    losses = [global_loss(house, records, index) for index in range(3)]
    np.testing.assert_allclose(np.load(out)["losses"], losses, rtol=1e-5)
    assert losses[-1] < losses[0]


def global_loss(house, records, index):
    sizes = [len(np.load(node.data / "y_test.npy")) for node in house.nodes]
    return np.average([record["history"][index]["evaluation"]["loss"] for record in records], weights=sizes)


def weights_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".safetensors"))
        return load(archive.read(name))
