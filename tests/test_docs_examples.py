"""The documentation's examples of plugins keep the contract, install and run."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import locex.errors
from locex.api import (
    BuildContext,
    Contribution,
    Dataset,
    InferencerContext,
    LocalData,
    ModelArtefact,
    PrivacyContext,
    SiteContext,
    Update,
)
from locex.plugins.catalog import read_catalog
from locex.plugins.check import faults_of
from locex.plugins.host import Host
from locex.plugins.kinds import KINDS
from locex.plugins.listing import PluginInfo
from locex.schemas.base import validate
from locex.schemas.data_format import DataFormat
from locex.schemas.job import (
    TrainConfig,
)
from locex.schemas.model import ModelMetadata
from locex.store.protocol import StoreContext
from locex.testing.contract.inferencer import try_inferencer

DOCS = Path(__file__).parent.parent / "docs"
FILE_BLOCK = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXECUTED = ("transform", "data", "privacy")


def example_files(kind: str) -> dict[str, str]:
    """Return the two files of a page by name."""
    files = dict(FILE_BLOCK.findall((DOCS / "plugins" / f"{kind}.md").read_text(encoding="utf-8")))
    assert len(files) == 2
    return files


def project_of(kind: str) -> tuple[str, str]:
    """Return the distribution and the plugin's name that a page's pyproject.toml has."""
    project = tomllib.loads(example_files(kind)["pyproject.toml"])["project"]
    return project["name"], next(iter(project["entry-points"][f"locex.{kind}"]))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the examples of `EXECUTED` installed by pip, as a user would."""
    folder = tmp_path_factory.mktemp("installed")
    sources = []
    for kind in EXECUTED:
        source = tmp_path_factory.mktemp(kind)
        for name, content in example_files(kind).items():
            (source / name).write_text(content, encoding="utf-8")
        sources.append(str(source))
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *sources], check=True, timeout=100)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder where every page's module lies beside the metadata that an installation would have written."""
    place = tmp_path_factory.mktemp("examples")
    for kind in KINDS:
        files = example_files(kind)
        project = tomllib.loads(files.pop("pyproject.toml"))["project"]
        for name, content in files.items():
            (place / name).write_text(content, encoding="utf-8")
        info = place / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        metadata = [f"Name: {project['name']}", f"Version: {project['version']}"]
        metadata += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
        (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *metadata, ""]), encoding="utf-8")
        points = [
            line
            for group, named in project["entry-points"].items()
            for line in (f"[{group}]", *(f"{name} = {target}" for name, target in named.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join([*points, ""]), encoding="utf-8")
    return place


@pytest.fixture
def use(folder, monkeypatch):
    """Return a function that loads the example of a kind with some fields."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    catalog, host = read_catalog(), Host()

    def load(kind, **fields):
        entry = catalog.find(kind, project_of(kind)[1])
        return host, host.configure(host.load(entry), fields)

    yield load
    for name in set(sys.modules) - before:
        if name.startswith("acme_"):
            del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_keeps_the_contract(kind, use):
    _host, plugin = use(kind, **REQUIRED.get(kind, {}))
    entry = plugin.loaded.entry
    schema = type(plugin.config).model_json_schema()
    info = PluginInfo(
        kind=kind, name=entry.name, distribution=entry.distribution, version="1", configuration=schema, frameworks=[]
    )
    assert faults_of(info) == []
    assert entry.requires == "<2,>=1"


REQUIRED = {"privacy": {"norm": 1}, "architecture": {"features": 3}}


def test_installed_examples_pass_the_check(installed, tmp_path):
    environment = {**os.environ, "LOCEX_PLUGIN_FOLDER": str(installed), "LOCEX_STATE_FOLDER": str(tmp_path)}
    running = {}
    for kind in EXECUTED:  # at the same time: most of it is waiting for Python to start
        command = [sys.executable, "-m", "locex.cli", "plugins", "check", project_of(kind)[1]]
        running[kind] = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    told = {kind: process.communicate(timeout=150)[0] for kind, process in running.items()}
    for kind, said in told.items():
        assert said.startswith(f"{kind} {project_of(kind)[1]} of {project_of(kind)[0]} 1.0.0: ok\n"), said
    assert "tried on x image" in told["transform"]
    assert {process.returncode for process in running.values()} == {0}


def test_the_installed_transformation_runs_as_its_page_says(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    importlib.invalidate_caches()
    page = (DOCS / "plugins/transform.md").read_text(encoding="utf-8")
    *_, trial = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names = {}
    exec(compile(trial, "docs/plugins/transform.md", "exec"), names)
    with pytest.raises(ValueError, match="needs larger images"):
        names["step"].transform_format(DataFormat.of({"tabular": {"size": [9]}}, {"categorical": {"size": []}}))


def test_the_data_source_reads_what_its_format_says(use, tmp_path):
    x, y = np.arange(24, dtype=np.uint8).reshape(6, 2, 2), np.arange(6)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    host, plugin = use("data")
    source = host.data(plugin, SiteContext(tmp_path, 0))
    assert source.format().x.data_types["image"].size == [2, 2]
    loaded = source.load()
    assert (len(loaded.train), len(loaded.test)) == (6, 2)
    assert loaded.format == source.format()
    for fields, what in (({"file": "../data.npz"}, "leads out"), ({"file": "absent.npz"}, "cannot be used")):
        host, plugin = use("data", **fields)
        with pytest.raises(locex.errors.DataUnavailable, match=what):
            host.data(plugin, SiteContext(tmp_path, 0)).format()


def test_the_privacy_mechanism_bounds_the_update(use):
    host, plugin = use("privacy", norm=1)
    mechanism = host.privacy(plugin, PrivacyContext("d", ledger=None, epsilon_spent=lambda *_: None))
    reference = {"w": np.zeros(2, np.float32), "n": np.array(3)}
    update = Update({"w": np.array([3, 4], np.float32), "n": np.array(9)}, reference, 10, {"loss": 1.0})
    left = mechanism.outgoing(update, {})
    np.testing.assert_allclose(left.parameters["w"], [0.6, 0.8], rtol=1e-6)
    assert left.parameters["n"] == 3
    with pytest.raises(locex.errors.PrivacyRefused):
        mechanism.outgoing(Update({"w": np.full(2, np.nan, np.float32)}, reference, 10, {}), {})


def test_the_aggregation_takes_the_median(use):
    host, plugin = use("aggregation")
    sent = [Contribution([np.array([value, -value])], 1, {}) for value in (1.0, 2.0, 900.0)]
    (new,) = host.aggregation(plugin).aggregate(1, [np.zeros(2)], sent)
    assert new.tolist() == [2, -2]


async def test_the_store_lies_where_its_url_says(use, tmp_path):
    host, plugin = use("store")
    store = host.store(plugin, StoreContext(tmp_path / "state", str(tmp_path / "elsewhere")))
    await store.open()
    await store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_the_inferencer_answers_from_its_file(use, tmp_path):
    weights, bias = np.array([[1, 2], [3, 4]]), np.array([0, 1])
    np.savez(tmp_path / "model.npz", weights=weights, bias=bias)
    metadata = validate(ModelMetadata, {"model_name": "m", "model_version": "1", "meta": {"library": "numpy"}})
    context = InferencerContext(ModelArtefact(tmp_path / "model.npz", metadata, ""), 1)
    x = np.array([[1, 1]], np.float32)
    host, plugin = use("inferencer")
    assert host.inferencer(plugin, context).run({"x": x}, ["y"])["y"].tolist() == [[4, 7]]
    assert try_inferencer(host.inferencer(plugin, context)).faults == []
    host, plugin = use("inferencer", probabilities=True)
    assert host.inferencer(plugin, context).run({"x": x}, ["y"])["y"].sum() == pytest.approx(1)
    np.savez(tmp_path / "model.npz", weights=weights)
    with pytest.raises(locex.errors.InvalidModel, match="the artefact is no linear model"):
        host.inferencer(plugin, context)


class Participant:
    """Trains a session, as a worker would."""

    rounds, stopping = 4, False

    def __init__(self, session):
        self.session = session
        self.losses = []

    def parameters(self):
        return self.session.get_parameters()

    def fit(self, parameters, config):
        self.session.set_parameters(parameters)
        result = self.session.fit(TrainConfig(epochs=5), server_round=config["server_round"])
        return Update(self.session.get_parameters(), parameters, result.examples, {})

    def evaluate(self, parameters, config):
        self.losses.append(self.session.evaluate(TrainConfig()).loss)


def test_builder_optimizer_scheduler_and_federation_train_together(use, tmp_path):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(200, 3)).astype(np.float32)
    examples = Dataset(x, x @ np.array([[1], [-2], [3]], np.float32) + 4)
    path = tmp_path / "model.safetensors"
    save_file({"weights": np.zeros((3, 1), np.float32), "bias": np.zeros(1, np.float32)}, path)
    metadata = validate(ModelMetadata, {"model_name": "m", "model_version": "1", "meta": {"library": "numpy"}})
    host, builder = use("builder")
    (_, optimizer), (_, scheduler) = use("optimizer", learning_rate="0.05"), use("scheduler")
    context = BuildContext(
        artefact=ModelArtefact(path, metadata, ""),
        data=LocalData(examples, examples, DataFormat.of({"tabular": {"size": [3]}}, {"numerical": {"size": [1]}})),
        num_classes=None,
        config=TrainConfig(),
        optimizer=lambda target: host.optimizer(optimizer, target),
        scheduler=lambda target: host.scheduler(scheduler, target),
        warmup=None,
        warmup_scheduler=None,
        architecture=lambda *_: None,
        threads=1,
        seed=0,
    )
    participant = Participant(host.builder(builder, context))
    host, alone = use("federation")
    host.federation(alone, None).run(participant)
    assert len(participant.losses) == 4
    assert participant.losses[-1] < 0.01

    participant.session.save_state(tmp_path)
    again = Participant(host.builder(builder, context))
    again.session.load_state(tmp_path)
    again.session.set_parameters(participant.parameters())
    assert again.session.evaluate(TrainConfig()).loss == participant.losses[-1]
    (exported,) = again.session.export(tmp_path, ["safetensors"])
    assert exported.stat().st_size > 0


def test_the_architecture_tells_its_signature(use):
    pytest.importorskip("torch")
    host, plugin = use("architecture", features=5)
    model, same = (host.architecture(plugin, 3) for _ in range(2))
    assert model.signature.output.size == (5,)
    assert all((a == b).all() for a, b in zip(model.parameters(), same.parameters(), strict=True))
