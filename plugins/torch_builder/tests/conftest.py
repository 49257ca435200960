from __future__ import annotations

import hashlib
from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import BuildContext, Dataset, LocalData, ModelArtefact
from locex.schemas.base import validate
from locex.schemas.data_format import DataFormat
from locex.schemas.job import TrainConfig
from locex.schemas.model import ModelMetadata


def plugin(kind, name):
    (entry,) = entry_points(group=f"locex.{kind}", name=f"pytorch.{name}")
    return entry.load()()


def optimizer(name="sgd", **fields):
    chosen = plugin("optimizer", name)
    config = validate(chosen.locex_config_model(), fields)
    return lambda parameters: chosen.locex_create_optimizer(config, parameters)


def scheduler(name="steplr", **fields):
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


@pytest.fixture
def make_context():
    def make(path, *, train=None, test=None, **fields):
        train = blobs() if train is None else train
        test = blobs(examples=40, seed=5) if test is None else test
        data_format = DataFormat.of({"any": {"size": list(train.x.shape[1:])}}, {"any": {"size": []}})
        metadata = ModelMetadata.model_validate(
            {"model_name": "m", "model_version": "1", "meta": {"library": "pytorch"}}
        )
        artefact = ModelArtefact(path, metadata, hashlib.sha256(path.read_bytes()).hexdigest())
        defaults = {
            "num_classes": None,
            "config": TrainConfig(batch_size=16),
            "optimizer": optimizer(lr=0.1, momentum=0.9),
            "scheduler": None,
            "warmup": None,
            "warmup_scheduler": None,
            "architecture": architecture,
            "threads": 1,
            "seed": 7,
        }
        data = LocalData(train, test, data_format)
        return BuildContext(artefact=artefact, data=data, **(defaults | fields))

    return make


@pytest.fixture
def make_session(make_context):
    def make(path, *, loss="categorical_crossentropy", metrics=("accuracy",), **fields):
        (entry,) = entry_points(group="locex.builder", name="pytorch")
        builder = entry.load()()
        config = validate(builder.locex_config_model(), {"eval_func": loss, "eval_metrics": list(metrics)})
        return builder.locex_create_builder(config, make_context(path, **fields))

    return make


@pytest.fixture
def mlp(tmp_path):
    from locex_torch_builder.artefact import write_architecture

    path = tmp_path / "mlp.zip"
    write_architecture(path, architecture="mlp", config={"input_size": [8], "hidden": [16], "num_classes": 3})
    return path


@pytest.fixture
def kit():
    """The plain functions above, for tests (test folders are no packages)."""

    class Kit:
        plugin = staticmethod(plugin)
        optimizer = staticmethod(optimizer)
        scheduler = staticmethod(scheduler)
        architecture = staticmethod(architecture)
        blobs = staticmethod(blobs)

    return Kit
