"""The documentation is complete and true: every name has its entry, links lead somewhere, examples run."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from pydantic import AliasChoices, BaseModel
from pydantic_core import PydanticUndefined
from safetensors.numpy import save_file

import locex.errors
from locex import api, hookspecs
from locex.api import BuildContext, Contribution, Dataset, LocalData, ModelArtefact, PrivacyContext, SiteContext, Update
from locex.jobs import site as files
from locex.jobs.messages import FromWorker, ToWorker
from locex.plugins.catalog import read_catalog
from locex.plugins.check import faults_of
from locex.plugins.host import Host
from locex.plugins.kinds import KINDS
from locex.plugins.listing import PluginInfo
from locex.schemas.base import validate
from locex.schemas.data_format import DataFormat
from locex.schemas.job import (
    Export,
    JobConfiguration,
    Resources,
    TrainConfig,
    TransformStep,
    WarmupConfig,
    parse_job,
)
from locex.schemas.model import ModelMetadata
from locex.schemas.record import FailureKind, JobState
from locex.settings import NodeSettings
from locex.store import protocol as store_protocol
from locex.store.protocol import StoreContext
from locex.web.lookup import BY_HANDLER
from locex.web.problems import STATUS
from locex_controller.request import _PLANNED, ServerConf, TrainingRequest, parse_request
from locex_controller.service import init_app as init_collector
from locex_controller.settings import CollectorSettings
from locex_server.app import init_app as init_node
from locex_server.demo import run as demo

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCES = sorted(ROOT.glob("*/src/**/*.py")) + sorted(ROOT.glob("plugins/*/src/**/*.py"))
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("plugins/*/README.md")})
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_BLOCK = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXECUTED = ("transform", "data", "privacy")


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Return what stands between a heading and the next of the same level or above."""
    level = heading.partition(" ")[0]
    begin = text.index(f"\n{heading}\n")
    following = re.compile(rf"^#{{1,{len(level)}}} ", re.MULTILINE).search(text, begin + len(heading) + 2)
    return text[begin : following.start() if following else None]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every row of every table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def first_cells(text: str) -> set[str]:
    """Return every word in code style that stands in the first cell of a row."""
    return {name for row in rows(text) for name in re.findall(r"`([^`]+)`", row[0])}


def blocks(text: str, language: str) -> list[str]:
    return [content for named, content in CODE_BLOCK.findall(text) if named == language]


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- nothing is missing -----------------------------------------------------------------------------------------------


def settings_of(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    """Return every setting as its row's first two cells; the default of a computed one is not told."""
    found = []
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else [alias or f"LOCEX_{name.upper()}"]
        found.append((name, ", ".join(f"`{one}`" for one in names), shown(field.default)))
    return found


def shown(default: object) -> str:
    if default is PydanticUndefined:
        return ""
    if default in (None, "", [], {}):
        return "–"
    if isinstance(default, bool):
        return f"`{int(default)}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("## The node (`locex serve`)", NodeSettings),
        ("## The Training Collector (`locex collector serve`)", CollectorSettings),
    ],
)
def test_every_setting_is_documented_with_its_default(heading, model):
    told = {row[0]: row for row in rows(section(read("settings.md"), heading))}
    for name, variables, default in settings_of(model):
        assert variables in told, name
        assert not default or told[variables][1] == default, name
        assert len(told[variables][2]) > 5, name


def test_every_error_code_is_documented_with_its_status():
    told = {row[0].strip("`"): row for row in rows(read("errors.md")) if row[0].startswith("`")}
    codes = {*STATUS, "not-found", "method-not-allowed"}
    for path in SOURCES:
        codes |= set(re.findall(r'\bcode\s*=\s*"([a-z]+(?:-[a-z]+)+|[a-z]+)"', path.read_text(encoding="utf-8")))
    codes |= {error.code for error in vars(locex.errors).values() if isinstance(error, type) and hasattr(error, "code")}
    assert codes - told.keys() == set()
    for code, status in STATUS.items():
        assert told[code][1] == str(status), code
    unmapped = codes - STATUS.keys() - {"not-found", "method-not-allowed"}
    assert {told[code][1] for code in unmapped} == {"–"}


def test_no_error_is_documented_that_does_not_exist():
    told = {row[0].strip("`") for row in rows(section(read("errors.md"), "## Over HTTP")) if row[0].startswith("`")}
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    invented = {code for code in told - {"not-found", "method-not-allowed"} if f'"{code}"' not in text}
    assert invented == set()


def test_every_failure_kind_is_documented():
    assert {kind.value for kind in FailureKind} <= first_cells(section(read("errors.md"), "## In a job's record"))


def documented_routes(heading: str) -> dict[tuple[str, str], str]:
    table = [row for row in rows(section(read("api.md"), heading)) if re.fullmatch(r"`(GET|POST|PUT|DELETE)`", row[0])]
    return {(row[0].strip("`"), row[1].strip("`").rstrip("/")): row[2] for row in table}


@pytest.mark.parametrize(
    ("heading", "make"),
    [
        ("## The node", lambda folder: init_node(NodeSettings(state_folder=folder))),
        ("## The Training Collector", lambda folder: init_collector(CollectorSettings(state_folder=folder))),
    ],
)
def test_every_endpoint_is_documented_with_its_scope(heading, make, tmp_path):
    served = {
        (route.method, route.path.rstrip("/")): route.scope.name.lower() if route.scope else "–"
        for route in make(tmp_path)[BY_HANDLER].values()
    }
    assert documented_routes(heading) == served


def names_of(model: type[BaseModel]) -> set[str]:
    aliases = {name: field.serialization_alias or name for name, field in model.model_fields.items()}
    return set(aliases.values())


def test_every_field_of_a_job_is_documented():
    told = first_cells(section(read("api.md"), "## The node"))
    fields = names_of(JobConfiguration) | names_of(TrainConfig) | names_of(WarmupConfig) | names_of(Resources)
    assert (fields | names_of(Export)) - told == set()
    assert {"id", "parameters"} == names_of(TransformStep)


def test_every_field_of_a_training_is_documented():
    told = first_cells(section(read("api.md"), "## The Training Collector"))
    assert (names_of(TrainingRequest) | names_of(ServerConf) | _PLANNED) - told == set()


def test_every_state_and_message_is_documented():
    text = read("architecture.md")
    assert [state.value for state in JobState if state.value not in section(text, "## Life of a job")] == []
    table = first_cells(section(text, "## Worker protocol"))
    messages = (*ToWorker.__args__, *FromWorker.__args__)
    assert {message.model_fields["kind"].default for message in messages} - table == set()


def hooks() -> list[str]:
    return [name for name in vars(hookspecs) if name.startswith("locex_")]


def test_every_hook_and_kind_is_documented():
    text = read("plugins.md")
    assert [hook for hook in hooks() if f"`{hook}`" not in text] == []
    table = {row[0]: row for row in rows(section(text, "## Kinds"))}
    for kind in KINDS.values():
        row = table[f"[{kind.name}](plugins/{kind.name}.md)"]
        assert row[1:3] == [f"`{kind.group}`", f"`{kind.hook}`"]
        assert row[4] == f"`Host.{kind.name}`"
        assert hasattr(Host, kind.name)
    assert {path.stem for path in (DOCS / "plugins").glob("*.md")} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kinds_page_has_the_hooks_signature_and_the_whole_protocol(kind):
    page = read(f"plugins/{kind}.md")
    hook = getattr(hookspecs, KINDS[kind].hook)
    parameters = ", ".join(map(str, inspect.signature(hook).parameters.values())).replace("'", "")
    returned = hook.__annotations__["return"]
    assert f"def {hook.__name__}({parameters}) -> {returned}" in page
    protocol = getattr(api, returned, None) or getattr(store_protocol, returned, None)
    members = [] if protocol is None else {*vars(protocol), *vars(protocol).get("__annotations__", ())}
    assert [name for name in members if not name.startswith("_") and not re.search(rf"`{name}[(`]", page)] == []


def test_every_benchmark_has_a_section():
    text = read("performance.md")
    modules = (ROOT / "benchmarks").glob("*.py")
    scripts = [path.name for path in modules if '"__main__"' in path.read_text(encoding="utf-8")]
    assert scripts
    assert [name for name in scripts if f"`benchmarks/{name}`" not in text] == []


def test_every_kind_of_plugin_in_this_repository_is_in_its_readme():
    for project in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        groups = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["entry-points"]
        readme = (project.parent / "README.md").read_text(encoding="utf-8")
        assert [name for points in groups.values() for name in points if f"`{name}`" not in readme] == []


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


# --- examples: JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_json_and_python_examples_are_well_formed(page):
    text = page.read_text(encoding="utf-8")
    for content in blocks(text, "json"):
        json.loads(content)
    for content in blocks(text, "python"):
        ast.parse(content if not content.startswith("def locex_") else content.rstrip() + ": ...")
    for content in blocks(text, "toml"):
        tomllib.loads(content)


def test_the_example_of_a_job_is_the_demos():
    (example,) = blocks(section(read("api.md"), "### Example"), "json")
    content = json.loads(example)
    running = demo.Federation(collector=None, nodes=[], server_address=content["server_address"])
    assert content == demo._job(running, 6, "flower-grpc")
    assert parse_job(content)[1] == []


def test_the_example_of_a_training_is_taken():
    (example,) = blocks(section(read("api.md"), "## The Training Collector"), "json")
    request, warnings = parse_request(json.loads(example), "t")
    assert warnings == []
    assert request.plan().needed() == 2


def test_the_examples_of_configmap_files_are_taken(tmp_path):
    text = section(read("settings.md"), "## ConfigMap files")
    names = ("setup.json", "format.json", "model.json", "transformation_pipeline_train.json")
    for name, content in zip(names, blocks(text, "json"), strict=True):
        (tmp_path / name).write_text(content, encoding="utf-8")
    site = NodeSettings(configuration_folder=tmp_path)
    assert files.data_of(site).source == "csv"
    assert files.format_of(site).x.data_types["image"].size == [28, 28]
    assert files.model_format_of(site).x.data_types["image"].size == [1, 28, 28]
    assert [step.id for step in files.pipelines_of(site).train] == ["expansion", "basic_norm"]


# --- examples: plugins ------------------------------------------------------------------------------------------------


def example_files(kind: str) -> dict[str, str]:
    """Return the two files of a page by name."""
    files = dict(FILE_BLOCK.findall(read(f"plugins/{kind}.md")))
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
    told = {kind: process.communicate(timeout=60)[0] for kind, process in running.items()}
    assert told == {kind: f"{kind} {project_of(kind)[1]} of {project_of(kind)[0]} 1.0.0: ok\n" for kind in EXECUTED}
    assert {process.returncode for process in running.values()} == {0}


def test_the_installed_transformation_runs_as_its_page_says(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    importlib.invalidate_caches()
    *_, trial = blocks(read("plugins/transform.md"), "python")
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
