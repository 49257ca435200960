from __future__ import annotations

import functools
import hashlib
import json
import warnings
import zipfile
from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import BuildContext, Dataset, LocalData, ModelArtefact
from locex.schemas.base import validate
from locex.schemas.data_format import DataFormat
from locex.schemas.job import TrainConfig
from locex.schemas.model import ModelMetadata


@functools.cache  # reading all installed metadata takes 20 ms
def plugin(kind, name):
    (entry,) = entry_points(group=f"locex.{kind}", name=f"pytorch.{name}")
    return entry.load()()


@functools.cache
def the_builder():
    (entry,) = entry_points(group="locex.builder", name="pytorch")
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


def passing(units):
    """An architecture whose outputs are its inputs until it is trained."""

    def create(name, fields, seed):
        import torch

        model = torch.nn.Linear(units, units)
        with torch.no_grad():
            model.weight.copy_(torch.eye(units))
            model.bias.zero_()
        return model

    return create


def export(module, path, example=None, dynamic=True):
    """Write a program as torch.export does."""
    import torch

    example = torch.zeros(2, 8) if example is None else example
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of LSTM's flat weights
        torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes), path)
    return path


@pytest.fixture
def bare(tmp_path):
    """An artefact without weights: the architecture that the test gives makes them."""
    manifest = {"format": "architecture", "library": "pytorch", "architecture": "any"}
    with zipfile.ZipFile(tmp_path / "bare.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
    return tmp_path / "bare.zip"


@pytest.fixture
def make_context():
    def make(path, *, train=None, test=None, augment=None, **fields):
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
        data = LocalData(train, test, data_format, augment)
        return BuildContext(artefact=artefact, data=data, **(defaults | fields))

    return make


@pytest.fixture
def make_session(make_context):
    def make(path, *, loss="categorical_crossentropy", metrics=("accuracy",), options=None, **fields):
        builder = the_builder()
        given = {"eval_func": loss, "eval_metrics": list(metrics), **(options or {})}
        config = validate(builder.locex_config_model(), given)
        return builder.locex_create_builder(config, make_context(path, **fields))

    return make


@pytest.fixture
def mlp(tmp_path):
    from locex_torch_builder.artefact import write_architecture

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
        passing = staticmethod(passing)
        export = staticmethod(export)

    return Kit
