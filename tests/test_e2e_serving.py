"""From training to serving with real services: an inference service follows what a node trains, under load."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

pytest.importorskip("locex_inference", reason="the inference service is not installed")

MODEL = "digits"


class Caller(threading.Thread):
    """An application that asks for one prediction after the other, and notes who answered what."""

    def __init__(self, port, images):
        super().__init__(daemon=True)
        self.port, self.images = port, images
        self.versions, self.failures = [], []
        self.ended = threading.Event()

    def run(self):
        from tritonclient.http import InferenceServerClient

        with InferenceServerClient(f"127.0.0.1:{self.port}") as client:
            while not self.ended.is_set():
                try:
                    version, _ = ask(client, self.images[:8])
                except Exception as error:  # noqa: BLE001 -- each is one too many, and told by the test
                    self.failures.append(repr(error))
                    time.sleep(0.01)
                else:
                    self.versions.append(version)

    def end(self):
        self.ended.set()
        self.join(30)


def ask(client, images):
    """Return the version that answers and the digits that it sees."""
    from tritonclient.http import InferInput

    [wanted] = client.get_model_metadata(MODEL)["inputs"]
    tensor = InferInput(wanted["name"], list(images.shape), wanted["datatype"])
    tensor.set_data_from_numpy(images.astype("float32" if wanted["datatype"] == "FP32" else "uint8"))
    answer = client.infer(MODEL, [tensor])
    response = answer.get_response()
    return response["model_version"], answer.as_numpy(response["outputs"][0]["name"]).argmax(1)


@pytest.fixture
def inference(house_with, programs):
    """A house, and an inference service that follows its first node with the node's data at hand."""
    house = house_with()
    node = house.nodes[0]
    service = type(node)(
        programs,
        "inference",
        "inference",
        "serve",
        DATA_FOLDER=str(node.data),
        LOCEX_FOLLOW=MODEL,
        LOCEX_FOLLOW_INTERVAL="0.2",
        LOCEX_FOLLOW_PIPELINE="1",
        LOCEX_GUARD="required",
        LOCEX_GRPC_PORT="0",
        LOCEX_NODE_ADDRESS=f"127.0.0.1:{node.port}",
    )
    service.start()
    service.ready()
    service.house = house
    yield service
    house.clear()


def followed(service):
    [told] = service.call("GET", "/follow").json()
    return told


def trained(house, rounds, **changes):
    """Train on the first node; return its record."""
    node = house.nodes[0]
    house.collect(rounds, nodes=1)
    node.post(house.id, house.job(export={"formats": ["onnx"], "each_round": True}, **changes))
    return node.finished(house.id)


def serves(service, version):
    """Wait until a version serves."""
    service.until(lambda: followed(service)["serving"] == version, lambda: f"{version} in {followed(service)}")


def verdict(service, version):
    """Wait for the guard's decision on a version and return it."""

    def decided():
        return [one for one in followed(service)["decisions"] if one["version"] == version]

    return service.until(decided, lambda: f"a verdict on {version} in {followed(service)}")[0]


@pytest.mark.slow
def test_rounds_are_served_without_a_lost_request_and_a_worse_model_is_refused(inference):
    from tritonclient.http import InferenceServerClient

    house, client = inference.house, InferenceServerClient(f"127.0.0.1:{inference.port}")
    node = house.nodes[0]
    images, digits = (np.load(node.data / f"{name}_test.npy") for name in "xy")
    caller = Caller(inference.port, images)

    record = trained(house, 1)
    serves(inference, record["model"]["model_version"])
    caller.start()
    record = trained(house, 6, epochs=40)
    best = record["model"]["model_version"]
    serves(inference, best)

    version, seen = ask(client, images)
    assert version == best
    assert np.mean(seen == digits) == pytest.approx(record["history"][-1]["evaluation"]["accuracy"], abs=1e-6)
    assert np.mean(seen == digits) > 0.9

    worse = trained(house, 1, epochs=1, optimizer_config={"optimizer": "sgd", "lr": 1e-6})["model"]["model_version"]
    refused = verdict(inference, worse)
    assert not refused["accepted"]
    assert "worse than the served version's" in refused["reason"]
    assert ask(client, images)[0] == best
    caller.end()
    assert caller.failures == []
    assert len(set(caller.versions)) >= 3
    assert any("-round" in version for version in caller.versions)
    assert caller.versions[-1] == best

    node.kill_with_children()
    inference.kill_with_children()
    inference.start()
    inference.ready()
    serves(inference, best)
    assert ask(client, images)[0] == best
