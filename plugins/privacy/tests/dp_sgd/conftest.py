"""What tests of mechanisms that act in training need: a site, and sessions of the installed builders."""

from __future__ import annotations

import functools
import json
import zipfile
from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import BuildContext, Dataset, LocalData, ModelArtefact, PrivacyContext, Update
from locex.schemas.base import validate
from locex.schemas.data_format import DataFormat
from locex.schemas.job import TrainConfig
from locex.schemas.model import ModelMetadata
from locex.testing.contract.privacy import memory_ledgers
from locex_privacy.dp_sgd.config import DpSgdConfig
from locex_privacy.dp_sgd.mechanism import DpSgdMechanism

RATES = {"pytorch": "lr", "keras": "learning_rate"}


@functools.cache  # reading all installed metadata takes 20 ms
def plugin(kind, name):
    (entry,) = entry_points(group=f"locex.{kind}", name=name)
    return entry.load()()


def optimizer(library, name="sgd", rate=1.0, **fields):
    chosen = plugin("optimizer", f"{library}.{name}")
    config = validate(chosen.locex_config_model(), {RATES[library]: rate, **fields})
    return lambda target: chosen.locex_create_optimizer(config, target)


def scheduler(library, name, **fields):
    chosen = plugin("scheduler", f"{library}.{name}")
    config = validate(chosen.locex_config_model(), fields)
    return lambda target: chosen.locex_create_scheduler(config, target)


def blobs(size=(8,), classes=3, examples=40, seed=0):
    """Examples that a small model tells apart."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, examples)
    centres = np.random.default_rng(99).normal(size=(classes, *size))
    return Dataset((centres[y] + random.normal(scale=0.3, size=(examples, *size))).astype(np.float32), y)


class Site:
    """A data set with its ledgers, and what was reported of it."""

    def __init__(self):
        self.ledger_of = memory_ledgers()
        self.spent = []

    def events(self, unit="example"):
        return self.ledger_of(unit).read()[1]

    @property
    def epsilon(self):
        return self.spent[-1][1]

    def mechanism(self, *trainings, num_rounds=None, learned=(), normal=None, choice=None, **fields):
        fields = {"max_grad_norm": 1, "noise_multiplier": 1} | fields
        fields = {name: value for name, value in fields.items() if value is not None}
        drawn = {name: draw for name, draw in (("normal", normal), ("choice", choice)) if draw}

        def report(*told):
            self.spent.append(told)

        context = PrivacyContext("patients", self.ledger_of, report, trainings, num_rounds, learned)
        return DpSgdMechanism(validate(DpSgdConfig, fields), context, **drawn)


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def session(tmp_path):
    """A session of an installed builder over the model that a function makes."""

    def make(
        library, create, train, *, config=None, test=None, augment=None, options=None, seed=7, artefact=None, **fields
    ):
        manifest = {"format": "architecture", "library": library, "architecture": "any"}
        path = tmp_path / "bare.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("manifest.json", json.dumps(manifest))
        metadata = ModelMetadata.model_validate({"model_name": "m", "model_version": "1", "meta": {"library": library}})
        form = DataFormat.of({"any": {"size": list(train.x.shape[1:])}}, {"any": {"size": []}})
        context = BuildContext(
            artefact=ModelArtefact(artefact or path, metadata, ""),
            data=LocalData(train, test or train, form, augment),
            num_classes=None,
            config=TrainConfig(),
            architecture=lambda *_: create(),
            threads=1,
            seed=seed,
            **({"optimizer": optimizer(library), "scheduler": None, "warmup": None, "warmup_scheduler": None} | fields),
        )
        builder = plugin("builder", library)
        return builder.locex_create_builder(validate(builder.locex_config_model(), options or {}), context)

    return make


def train(mechanism, session, config, server_round=1, **fields):
    """Do a round as the worker does; return what leaves."""
    mechanism.before_fit({})
    reference = session.get_parameters()
    result = session.fit(config, server_round=server_round, **fields)
    return mechanism.outgoing(Update(session.get_parameters(), reference, result.examples, result.metrics), {})


@pytest.fixture(scope="session")
def kit():
    """The plain functions above, for tests (test folders are no packages)."""

    class Kit:
        optimizer = staticmethod(optimizer)
        scheduler = staticmethod(scheduler)
        blobs = staticmethod(blobs)
        plugin = staticmethod(plugin)
        train = staticmethod(train)

        @staticmethod
        def silent(size):
            return np.zeros(size)

        @staticmethod
        def always(*batches):
            """A choice that gives these batches, one after the other and over again."""
            given = iter(range(10**9))
            return lambda _size, _rate: np.asarray(batches[next(given) % len(batches)], np.int64)

    return Kit
