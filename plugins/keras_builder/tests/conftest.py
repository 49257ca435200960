from __future__ import annotations

import hashlib
import json
import zipfile
from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import BuildContext, Dataset, LocalData, ModelArtefact
from locex.schemas.base import validate
from locex.schemas.data_format import DataFormat
from locex.schemas.job import TrainConfig
from locex.schemas.model import ModelMetadata


def plugin(kind, name):
    (entry,) = entry_points(group=f"locex.{kind}", name=f"keras.{name}")
    return entry.load()()


def optimizer(name="sgd", **fields):
    chosen = plugin("optimizer", name)
    config = validate(chosen.locex_config_model(), fields)
    return lambda parameters: chosen.locex_create_optimizer(config, parameters)


def scheduler(name="reducelronplateau", **fields):
    chosen = plugin("scheduler", name)
    config = validate(chosen.locex_config_model(), fields)
    return lambda target: chosen.locex_create_scheduler(config, target)


def architecture(name, fields, seed=None):
    seed = 1 if seed is None else seed  # the job's
    chosen = plugin("architecture", name)
    return chosen.locex_create_architecture(validate(chosen.locex_config_model(), dict(fields)), seed)


def blobs(size=(8,), classes=3, examples=90, seed=0):
    """Examples that a small model tells apart."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, examples)
    centres = np.random.default_rng(99).normal(size=(classes, *size))
    return Dataset((centres[y] + random.normal(scale=0.3, size=(examples, *size))).astype(np.float32), y)


def pack(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def entries_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(keras_file, path, change):
    """Write a ``.keras`` file whose configuration ``change`` has edited."""
    entries = entries_of(keras_file)
    config = json.loads(entries["config.json"])
    change(config)
    return pack(path, entries | {"config.json": json.dumps(config)})


def zipped(folder, path, root=""):
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return pack(path, {f"{root}{file.relative_to(folder)}": file.read_bytes() for file in files})


def same(left, right):
    assert list(left) == list(right)
    return all(np.array_equal(left[name], right[name]) for name in left)


class Optimizers:
    """Makes optimizers of Keras' own, and keeps the last."""

    def __init__(self, name="SGD", **fields):
        self.name, self.fields = name, fields

    def __call__(self, target):
        self.made = getattr(target.keras.module.optimizers, self.name)(**self.fields)
        return self.made


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory):
    """A small model as Keras 3 saves it."""
    from locex_keras_builder.kerases import import_keras

    keras = import_keras("keras").module
    layers = keras.layers
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, "relu"), layers.Dropout(0.1), layers.Dense(3)])
    path = tmp_path_factory.mktemp("keras") / "net.keras"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def saved_folder(tmp_path_factory):
    """A small model as tf_keras saves it: a folder."""
    from locex_keras_builder.kerases import import_keras, quiet

    keras = import_keras("tf_keras").module
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, "relu"), layers.BatchNormalization(), layers.Dense(3, "softmax")]
    )
    folder = tmp_path_factory.mktemp("saved")
    with quiet():
        model.save(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """One small model with drop-out and batch normalization of each Keras."""
    from locex_keras_builder.kerases import import_keras, quiet

    folder = tmp_path_factory.mktemp("models")
    for name in ("keras", "tf_keras"):
        keras = import_keras(name).module
        keras.utils.set_random_seed(3)
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(16, "relu", kernel_regularizer="l2"),
                layers.BatchNormalization(),
                layers.Dropout(0.2),
                layers.Dense(3, "softmax"),
            ]
        )
        with quiet():
            model.save(folder / f"{name}.keras")
    return folder


@pytest.fixture(params=["keras", "tf_keras"])
def either(request, models):
    return models / f"{request.param}.keras"


@pytest.fixture
def make_context():
    def make(path, *, train=None, test=None, augment=None, **fields):
        train = blobs() if train is None else train
        test = blobs(examples=40, seed=5) if test is None else test
        data_format = DataFormat.of({"any": {"size": list(train.x.shape[1:])}}, {"any": {"size": []}})
        metadata = ModelMetadata.model_validate({"model_name": "m", "model_version": "1", "meta": {"library": "keras"}})
        artefact = ModelArtefact(path, metadata, hashlib.sha256(path.read_bytes()).hexdigest())
        defaults = {
            "num_classes": None,
            "config": TrainConfig(batch_size=16),
            "optimizer": optimizer(learning_rate=0.1, momentum=0.9),
            "scheduler": None,
            "warmup": None,
            "warmup_scheduler": None,
            "architecture": architecture,
            "threads": 1,
            "seed": 7,
        }
        data = LocalData(train, test, data_format, augment)
        return BuildContext(artefact=artefact, data=data, **(defaults | fields))

    return make


@pytest.fixture
def make_session(make_context):
    def make(path, *, loss="categorical_crossentropy", metrics=("accuracy",), options=None, **fields):
        (entry,) = entry_points(group="locex.builder", name="keras")
        builder = entry.load()()
        fields_of_job = {"eval_func": loss, "eval_metrics": list(metrics), **(options or {})}
        config = validate(builder.locex_config_model(), fields_of_job)
        return builder.locex_create_builder(config, make_context(path, **fields))

    return make


@pytest.fixture
def mlp(tmp_path):
    from locex_keras_builder.artefact import write_architecture

    path = tmp_path / "mlp.zip"
    write_architecture(path, architecture="mlp", config={"input_size": [8], "hidden": [16], "num_classes": 3})
    return path


@pytest.fixture(scope="session")
def kit():
    """The plain functions above, for tests (test folders are no packages)."""

    class Kit:
        plugin = staticmethod(plugin)
        optimizer = staticmethod(optimizer)
        scheduler = staticmethod(scheduler)
        architecture = staticmethod(architecture)
        blobs = staticmethod(blobs)
        pack = staticmethod(pack)
        entries_of = staticmethod(entries_of)
        changed = staticmethod(changed)
        zipped = staticmethod(zipped)
        same = staticmethod(same)
        Optimizers = Optimizers

    return Kit
