"""Homomorphic encryption with real services: three nodes with digits, a collector that reads nothing."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points

import numpy as np
import pytest
from safetensors.numpy import load

pytest.importorskip("locex_privacy.homomorphic.ckks", reason="the extra [homomorphic] is not installed")

ROUNDS = 3
MECHANISM = {"homomorphic": {}}
MAGIC = b"locex-ckks-1\n"


def thirds():
    """Return digits for three nodes, in parts of different size."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(y))
    return [(x[part].astype("uint8"), y[part]) for part in np.split(order, [400, 900])]


@pytest.fixture
def sealed_house(house_with, tmp_path):
    """A house whose nodes share a secret key, and whose collector has the public half."""
    for name in ("fed", "other"):
        command = [sys.executable, "-m", "locex.cli", "keys", "new", name, "--folder", str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True)
    public, secret = tmp_path / "fed" / "fed.public", tmp_path / "fed" / "fed.secret"
    house = house_with(given=thirds(), collector={"HM_PUBLIC_FILE": str(public)}, HM_SECRET_FILE=str(secret))
    house.keys = tmp_path
    yield house
    house.clear()


def begin(house, mechanisms, rounds=ROUNDS, federation="flower-grpc", model=("digits", "1"), **fields):
    """Start a training on all nodes, whose jobs have further fields; return what the first job's answer warns of."""
    both = {"federation": federation, "model_name": model[0], "model_version": model[1]}
    house.collect(rounds, nodes=3, **both, **{"privacy-mechanisms": {name: {} for name in mechanisms}})
    job = house.job(seed=5, **both, **{"privacy-mechanisms": mechanisms}, **fields)
    first, *_ = [node.post(house.id, job) for node in house.nodes]
    return first["warnings"]


def end(house):
    """Return the nodes' records, the collector's and the model that the nodes keep: all the same one."""
    records = [node.finished(house.id) for node in house.nodes]
    seen = house.collector.finished(house.id)
    kept = [weights_of(node.call("GET", f"/job/{house.id}/model").content) for node in house.nodes]
    for name, tensor in kept[0].items():
        for other in kept[1:]:
            np.testing.assert_array_equal(tensor, other[name])
    return records, seen, kept[0]


def weights_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".safetensors"))
        return load(archive.read(name))


def assert_sealed(house, model):
    """The collector has ciphertexts and no tensor of the model, in what it gives away and on its disk."""
    given = load(house.collector.call("GET", f"/job/{house.id}/model").content)
    assert given["0"].tobytes().startswith(MAGIC)
    assert {tensor.dtype.name for tensor in given.values()} == {"uint8"}
    (run,) = [one for one in house.collector.folder.rglob("checkpoint.safetensors") if house.id in spec_of(one)]
    content = run.read_bytes()
    assert MAGIC in content
    for tensor in model.values():
        assert tensor.tobytes()[:64] not in content


def spec_of(checkpoint):
    return (checkpoint.parent / "spec.json").read_text()


def assert_equal(model, plain):
    """Equal to plain FedAvg: what encryption adds, and training makes of it in the rounds that follow."""
    for name, tensor in plain.items():
        np.testing.assert_allclose(model[name], tensor, rtol=0, atol=2e-6 * 10)


def test_three_nodes_train_as_they_do_in_clear_and_the_collector_reads_nothing(sealed_house):
    house = sealed_house
    begin(house, {})
    clear, _, plain = end(house)
    warnings = begin(house, MECHANISM)
    assert [text for text in warnings if "homomorphic needs locex's collector" in text]
    records, seen, model = end(house)
    assert house.accuracy(records) == pytest.approx(house.accuracy(clear), abs=0.005)
    assert house.accuracy(records) > 0.8
    assert [len(one["participants"]) for one in seen["history"]] == [3] * ROUNDS
    assert_equal(model, plain)
    assert_sealed(house, model)
    assert all("the server sent no weights" not in text for record in records for text in record["warnings"])


@pytest.mark.slow
def test_a_node_with_the_wrong_key_is_told_before_it_trains_and_the_others_go_on(sealed_house):
    house, stranger = sealed_house, sealed_house.nodes[2]
    (house.keys / "fed" / "fed.secret").rename(house.keys / "right")
    (house.keys / "other" / "other.secret").rename(house.keys / "fed" / "fed.secret")
    house.collect(1, nodes=2, **{"privacy-mechanisms": MECHANISM, "strategy_conf": {"min_available_clients": 3}})
    job = house.job(**{"privacy-mechanisms": MECHANISM})
    stranger.post(house.id, job)
    stranger.reach(house.id, lambda record: record["state"] == "WAITING" and record["worker"])
    (house.keys / "right").rename(house.keys / "fed" / "fed.secret")
    for node in house.nodes[:2]:
        node.post(house.id, job)
    record = stranger.over(house.id)
    assert (record["state"], record["failure"]["code"], record["history"]) == ("FAILED", "privacy-refused", [])
    assert "this node has the wrong key" in record["failure"]["message"]
    assert [node.finished(house.id)["round"] for node in house.nodes[:2]] == [1, 1]
    (failure,) = house.collector.finished(house.id)["history"][0]["failures"].values()
    assert "wrong key" in failure


@pytest.mark.slow
def test_a_killed_collector_goes_on_from_its_ciphertexts_over_a_superlink(sealed_house):
    house = sealed_house
    begin(house, {}, federation="flower-superlink")
    _, _, plain = end(house)
    begin(house, MECHANISM, federation="flower-superlink")
    house.collector.reach(house.id, lambda record: record["round"] >= 1)
    house.collector.kill_with_children()
    house.collector.start()
    house.collector.ready()
    _, seen, model = end(house)
    assert seen["resumes"] >= 1
    assert_equal(model, plain)
    assert_sealed(house, model)


@pytest.mark.slow
def test_the_plain_mean_of_noised_updates_is_taken_unread(sealed_house):
    """The half of dp-fixed at the collector gives way: nodes name one example each."""
    house = sealed_house
    noise = {"clip_norm": 5.0, "noise_multiplier": 0.001}
    begin(house, {"dp-fixed": noise, "homomorphic": {}})
    records, seen, model = end(house)
    assert house.accuracy(records) >= 0.8
    assert [(one["examples"], one["train"]) for one in seen["history"]] == [(3, {})] * ROUNDS
    assert_sealed(house, model)


@pytest.mark.slow
def test_keras_models_are_averaged_unread(sealed_house, artefact):
    """TensorFlow's workers encrypt too; its protobuf and TenSEAL's share a process."""
    house = sealed_house
    house.add_model("keras-digits", artefact([64], hidden=[32], library="keras"), library="keras")
    optimizer = {"optimizer": "sgd", "learning_rate": 0.1}
    begin(house, MECHANISM, model=("keras-digits", "1"), optimizer_config=optimizer)
    records = [node.finished(house.id) for node in house.nodes]
    seen = house.collector.finished(house.id)
    assert house.accuracy(records) > 0.8
    assert [(len(one["participants"]), one["failures"]) for one in seen["history"]] == [(3, {})] * ROUNDS
    assert load(house.collector.call("GET", f"/job/{house.id}/model").content)["0"].tobytes().startswith(MAGIC)


@pytest.mark.slow
@pytest.mark.parametrize("federation", ["flower-grpc", "flower-superlink"])
def test_a_model_of_two_million_parameters_passes(sealed_house, artefact, federation):
    house = sealed_house
    house.add_model("large", artefact([64], hidden=[1400, 1400]), version=federation)
    begin(house, MECHANISM, rounds=1, federation=federation, model=("large", federation), epochs=1)
    _, seen, model = end(house)
    assert sum(tensor.size for tensor in model.values()) > 2_000_000
    assert len(seen["history"][0]["participants"]) == 3
    assert_sealed(house, model)


@pytest.mark.slow
@pytest.mark.skipif(not entry_points(group="locex.privacy", name="dp-sgd"), reason="dp-sgd is not installed")
def test_private_gradients_are_averaged_unread(sealed_house):
    """Example-level privacy within each node, encryption towards the server; ε is counted as without it."""
    house = sealed_house
    gradients = {"max_grad_norm": 1.0, "noise_multiplier": 0.7}
    begin(house, {"dp-sgd": gradients, "homomorphic": {}}, rounds=4)
    records, seen, model = end(house)
    assert house.accuracy(records) >= 0.6
    assert_sealed(house, model)
    assert [(one["examples"], one["train"], one["evaluation"]) for one in seen["history"]] == [(3, {}, {})] * 4
    for record in records:
        spent = [one["epsilon"]["example"] for one in record["history"]]
        assert 0 < spent[0] < spent[1] < spent[2] < spent[3] < 100
