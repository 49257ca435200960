"""Adaptive clipping and compressed updates with real services: three nodes with digits, both wires, a stock server."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from locex_privacy.accountant import epsilon, gaussian_event

NOISE = 0.02  # so little that the few nodes of a test learn something; ε says what that is worth
ADAPTIVE = {"init_clip_norm": 0.5, "noise_multiplier": NOISE, "clip_count_stddev": 0.5}
HONEST = "client (if the server is honest)"


def spent(rounds, noise=NOISE):
    return epsilon([gaussian_event(noise)] * rounds, 1e-5)


def thirds():
    """Return digits for three nodes, in parts of different size."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(y))
    return [(x[part].astype("uint8"), y[part]) for part in np.split(order, [400, 900])]


@pytest.fixture
def three(house_with):
    """A collector and three nodes."""
    house = house_with(given=thirds())
    yield house
    house.clear()


def trained(house, rounds, mechanisms, federation="flower-grpc", per_node=None):
    """Run a training on all nodes; return their records, the collector's, and the answers to their jobs."""
    house.collect(rounds, nodes=3, federation=federation, **{"privacy-mechanisms": mechanisms})
    answers = [
        node.post(house.id, house.job(federation=federation, seed=5, **{"privacy-mechanisms": own}))
        for node, own in zip(house.nodes, per_node or [mechanisms] * 3, strict=True)
    ]
    records = [node.finished(house.id) for node in house.nodes]
    return records, house.collector.finished(house.id), answers


def clip_norm(house):
    """Return the norm that the collector's checkpoint holds after the last round."""
    (path,) = house.collector.folder.glob("state/trainings/*/checkpoint.safetensors")
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        state = json.loads(json.loads(file.read(length))["__metadata__"]["state"])
    return state["clip_norm"]


@pytest.mark.parametrize(
    ("server_side", "federation", "unit"),
    [
        (True, "flower-grpc", HONEST),
        pytest.param(False, "flower-superlink", "client", marks=pytest.mark.slow),
    ],
)
def test_adaptive_clipping_learns_and_tells_its_epsilon(three, server_side, federation, unit):
    mechanism = {"dp-adaptive": ADAPTIVE | {"server_side_noising": server_side}}

    records, seen, answers = trained(three, 6, mechanism, federation)

    for record in records:
        told = [one["epsilon"] for one in record["history"]]
        assert told == [{unit: pytest.approx(spent(rounds))} for rounds in range(1, 7)]
    assert three.accuracy(records) > 0.85
    assert [len(one["participants"]) for one in seen["history"]] == [3] * 6
    assert [(one["train"], one["examples"]) for one in seen["history"]] == [({}, 3)] * 6
    assert 0.2 < clip_norm(three) != 0.5
    honest = [any("server is honest" in text for text in answer["warnings"]) for answer in answers]
    assert honest == [server_side] * 3


def test_a_collector_that_leaves_the_noise_to_its_nodes_is_refused_by_those_that_count_on_it(house):
    """Two nodes, since nothing is trained."""
    fields = ADAPTIVE | {"server_side_noising": False}
    house.collect(1, nodes=2, **{"privacy-mechanisms": {"dp-adaptive": fields}})
    for node in house.nodes:
        node.post(
            house.id, house.job(**{"privacy-mechanisms": {"dp-adaptive": fields | {"server_side_noising": True}}})
        )

    for node in house.nodes:
        record = node.over(house.id)
        assert record["failure"]["code"] == "privacy-refused"
        assert "leaves the noise to its nodes" in record["failure"]["message"]
        assert not record["history"]


def test_flowers_own_adaptive_clipping_drives_our_nodes(house, stock_server):
    fields = {"noise_multiplier": 0.05, "clip_count_stddev": 0.03, "init_clip_norm": 1}

    seen = driven(house, stock_server, "adaptive", 4, {"dp-adaptive": fields})

    assert seen[:, 1:3].tolist() == [[2, 0]] * 4
    assert seen[:, 3].tolist() == [0] * 4  # every update is longer than the norm that the server began with
    np.testing.assert_allclose(seen[1:, 0] / seen[:-1, 0], np.exp(0.2 * 0.5), rtol=0.05)  # σ_b / 2 on the share


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fixed", "client-side"])
def test_flowers_own_fixed_clipping_drives_our_nodes(house, stock_server, strategy):
    fields = {"noise_multiplier": 0.05, "clip_norm": 0.5, "server_side_noising": True}

    seen = driven(house, stock_server, strategy, 2, {"dp-fixed": fields})

    assert seen[:, 1:3].tolist() == [[2, 0]] * 2


def driven(house, stock_server, strategy, rounds, mechanisms):
    """Let a stock server run a training on two nodes; return what it saw of every round."""
    out = stock_server(house, "dpfedavg.py", rounds, strategy)
    for node in house.nodes:
        node.post(house.id, house.job(num_rounds=rounds, **{"privacy-mechanisms": mechanisms}))
    records = [node.finished(house.id) for node in house.nodes]
    house.nodes[0].reach(house.id, lambda _: out.exists())
    assert all(set(record["history"][-1]["epsilon"]) == {HONEST} for record in records)
    return np.load(out)["seen"]


def test_senseless_mechanisms_are_refused_at_the_post(house):
    both = {"dp-fixed": {"clip_norm": 1, "noise_multiplier": 1}, "dp-adaptive": {"num_sampled_clients": 40}}

    answer = house.nodes[0].http.post("/job/config/senseless/", json=house.job(**{"privacy-mechanisms": both}))

    assert answer.json()["code"] == "privacy-refused"
    assert "both clip and noise the same update" in answer.json()["detail"]


@pytest.mark.parametrize("federation", ["flower-grpc", pytest.param("flower-superlink", marks=pytest.mark.slow)])
def test_compressed_updates_train_as_well_as_whole_ones(three, federation):
    """Each node compresses in its own way; one adds noise before."""
    methods = [{"method": "int8"}, {"method": "fp16"}, {"method": "topk", "keep": 0.2}]
    per_node = [{"compression": method} for method in methods]

    records, seen, answers = trained(three, 4, {"compression": {}}, federation, per_node)

    assert three.accuracy(records) > 0.9
    assert [one["failures"] for one in seen["history"]] == [{}] * 4
    assert seen["history"][-1]["examples"] == sum(len(np.load(node.data / "y_train.npy")) for node in three.nodes)
    assert all("a stock Flower server fails" in " ".join(answer["warnings"]) for answer in answers)


@pytest.mark.slow
def test_noise_and_compression_go_together(three):
    mechanisms = {"dp-adaptive": ADAPTIVE | {"server_side_noising": True}, "compression": {"method": "int8"}}

    records, seen, _ = trained(three, 5, mechanisms)

    assert three.accuracy(records) > 0.85
    assert [one["failures"] for one in seen["history"]] == [{}] * 5
    assert records[0]["history"][-1]["epsilon"] == {HONEST: pytest.approx(spent(5))}
