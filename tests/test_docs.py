"""The documentation is complete and true: every name has its entry, links lead somewhere, examples are taken."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import AliasChoices, BaseModel
from pydantic_core import PydanticUndefined

import locex.errors
from locex import api, hookspecs
from locex.jobs import site as files
from locex.jobs.messages import FromWorker, ToWorker
from locex.plugins.host import Host
from locex.plugins.kinds import KINDS
from locex.schemas.job import (
    Export,
    JobConfiguration,
    Resources,
    TrainConfig,
    TransformStep,
    WarmupConfig,
    parse_job,
)
from locex.schemas.record import FailureKind, JobState
from locex.settings import NodeSettings
from locex.store import protocol as store_protocol
from locex.web.lookup import BY_HANDLER
from locex.web.problems import STATUS
from locex_controller.request import _PLANNED, ServerConf, TrainingRequest, parse_request
from locex_controller.service import init_app as init_collector
from locex_controller.settings import CollectorSettings
from locex_inference.errors import InferenceError
from locex_inference.following.settings import FollowSettings
from locex_inference.grpc.status import MalformedMessage
from locex_inference.settings import InferenceSettings
from locex_inference.shared_memory import UnknownRegion
from locex_server.app import init_app as init_node
from locex_server.demo import run as demo
from locex_server.inference.settings import BesideSettings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCES = sorted(ROOT.glob("*/src/**/*.py")) + sorted(ROOT.glob("plugins/*/src/**/*.py"))
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("plugins/*/README.md")})
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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
        ("## Inference (`locex inference serve`)", InferenceSettings),
        ("## The node (`locex serve`)", NodeSettings),
        ("## The Training Collector (`locex collector serve`)", CollectorSettings),
        ("## Following (inference)", FollowSettings),
        ("## Inference beside the node", BesideSettings),
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
    statuses = STATUS | {error.code: error.http for error in inference_errors(InferenceError)}
    for code, status in statuses.items():
        assert told[code][1] == str(status), code
    unmapped = codes - statuses.keys() - {"not-found", "method-not-allowed"}
    assert {told[code][1] for code in unmapped} == {"–"}


def inference_errors(kind):
    yield kind
    for each in kind.__subclasses__():
        yield from inference_errors(each)


def test_errors_of_inference_are_documented_with_their_grpc_status():
    table = section(read("errors.md"), "## In the inference protocol")
    told = {row[0].strip("`"): row[2].strip("`") for row in rows(table) if row[0].startswith("`")}
    found = {*inference_errors(InferenceError)}
    assert {MalformedMessage, UnknownRegion} < found
    for error in found:
        assert told[error.code] == error.grpc, error.code


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
        for name in (name for points in groups.values() for name in points):
            assert f"`{name}`" in readme or f"`{name.rpartition('.')[2]}`" in readme, name  # whole, or as users type it


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
