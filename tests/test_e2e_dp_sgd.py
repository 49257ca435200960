"""Example-level differential privacy from jobs to the collector: ``dp-sgd`` in workers of real services."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import psutil
import pytest

from locex_privacy.accountant import epsilon

DELTA = 1.5e-3
PRIVATE = {"max_grad_norm": 0.5, "target_epsilon": 8, "delta": DELTA}


def private(house, rounds, *nodes, job=None, **fields):
    """Start a training whose nodes train privately with the settings that docs/privacy/dp-sgd.md recommends."""
    house.collect(rounds, nodes=len(nodes))
    changes = {
        "num_rounds": rounds,
        "config": [{"batch_size": 128, "epochs": 4}],
        "optimizer_config": {"optimizer": "adam", "lr": 0.01},
        "privacy-mechanisms": {"dp-sgd": PRIVATE | fields},
    }
    for node in nodes:
        node.post(house.id, house.job(**changes | (job or {})))


def thirds():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))
    return [(x[part].astype("uint8"), y[part]) for part in np.array_split(order, 3)]


def test_three_nodes_train_privately_and_well(house_with):
    house = house_with(given=thirds())
    private(house, 10, *house.nodes)
    records = [node.finished(house.id) for node in house.nodes]

    assert house.accuracy(records) > 0.85  # 479 examples a node, of whom no one is known
    for node, record in zip(house.nodes, records, strict=True):
        grown = [one["epsilon"]["example"] for one in record["history"]]
        assert grown == sorted(set(grown))
        assert 7.9 < grown[-1] <= 8
        version = record["model"]["model_version"]
        (stored,) = (model for model in node.call("GET", "/model/").json() if model["model_version"] == version)
        assert stored["lineage"]["epsilon"] == {"example": grown[-1]}
    seen = house.collector.finished(house.id)
    assert [(one["train"], one["evaluation"], one["examples"]) for one in seen["history"]] == [({}, {}, 3)] * 10

    first = house.nodes[0]
    private(house, 1, first)
    record = first.over(house.id)
    assert (record["state"], record["failure"]["code"]) == ("FAILED", "privacy-refused")
    assert "past max_epsilon=8" in record["failure"]["message"]
    assert not record["history"]


def charged(node):
    """Return the events of a node's ledger, as its store has them."""
    with closing(sqlite3.connect(node.folder / "state" / "store.sqlite3")) as store:
        return [json.loads(event) for (event,) in store.execute("SELECT event FROM ledger ORDER BY version")]


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["worker", "service"])
def test_a_round_in_which_a_process_was_killed_stays_charged(house_with, killed):
    house = house_with()
    node = house.nodes[0]
    fields = {"target_epsilon": None, "noise_multiplier": 4, "max_epsilon": 100}
    private(house, 3, node, job={"config": [{"batch_size": 128, "epochs": 200}]}, **fields)
    node.until(lambda: len(charged(node)) == 2, "the charge of the second round")
    worker, metrics = psutil.Process(node.record(house.id)["worker"]["pid"]), node.call("GET", "/metrics").text
    if killed == "worker":
        worker.kill()
    else:
        node.kill()
        node.start()
        node.ready()

    record = node.finished(house.id)

    events = charged(node)
    trained = [one for one in record["history"] if one.get("fit_seconds") is not None]
    assert record["resumes"] == 1
    assert 'unit="example"' in metrics
    assert len(events) == len(trained) + 1
    assert trained[-1]["epsilon"]["example"] == pytest.approx(epsilon(events, DELTA))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"builder": {"mixed_precision": "bfloat16"}}, "mixed_precision"),
        ({"optimizer_config": {"optimizer": "lbfgs"}}, "lbfgs"),
        ({"scheduler_config": {"scheduler": "reducelronplateau"}}, "monitors"),
        ({"num_rounds": None}, "number of planned rounds"),
    ],
)
def test_a_job_that_cannot_be_private_is_refused_when_it_is_posted(house, changes, named):
    house.new_training()
    job = house.job(**{"num_rounds": 1, "privacy-mechanisms": {"dp-sgd": PRIVATE}} | changes)

    answer = house.nodes[0].http.post(f"/job/config/{house.id}/", json=job)

    assert answer.status_code == 409
    assert answer.json()["code"] == "privacy-refused"
    assert named in answer.json()["detail"]


def test_a_step_that_learned_from_the_data_is_refused_before_training(house):
    node = house.nodes[0]
    scaled = [{"id": "standard_scale"}]
    private(house, 1, node, job={"transformations": {"train": scaled, "test": scaled}})

    record = node.over(house.id)

    assert record["failure"]["code"] == "privacy-refused"
    assert "standard_scale" in record["failure"]["message"]


@pytest.mark.slow
def test_keras_trains_privately(house, artefact):
    house.add_model("keras-digits", artefact([64], library="keras"), library="keras")
    node = house.nodes[0]
    house.collect(6, nodes=1, model_name="keras-digits")
    changes = {
        "model_name": "keras-digits",
        "num_rounds": 6,
        "config": [{"batch_size": 128, "epochs": 5}],
        "optimizer_config": {"optimizer": "adam", "learning_rate": 0.01},
        "privacy-mechanisms": {"dp-sgd": PRIVATE},
    }
    node.post(house.id, house.job(**changes))

    record = node.finished(house.id)

    assert record["history"][-1]["evaluation"]["accuracy"] > 0.8
    assert 7.9 < record["history"][-1]["epsilon"]["example"] <= 8
