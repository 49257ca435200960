"""Plugins with bad manners, and plugins that change: each costs its own job, and the service goes on."""

from __future__ import annotations

import asyncio
import sys

import psutil
import pytest

pytestmark = pytest.mark.timeout(300)  # packages are built

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "locex-fixture-changing"
version = "{version}"
dependencies = ["locex-core>=1,<2"]

[project.entry-points."locex.transform"]
{name} = "fixture_changing:Changing"

[tool.hatch.build.targets.wheel]
only-include = ["fixture_changing.py"]
"""
MODULE = """
from pydantic import Field

from locex.api import Needs
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class Config(PluginConfig):
    {field}: int = Field(default=1, description="A number.")


class Changing:
    needs = Needs()

    @hookimpl
    def locex_config_model(self):
        return Config

    @hookimpl
    def locex_create_transform(self, config):
        return self

    def transform_format(self, data_format):
        return data_format

    def transform_data(self, data):
        return data
"""


def step(name, **parameters):
    steps = [{"id": name, "parameters": parameters}]
    return {"train": steps, "test": steps}


async def install(place, folder, *, version, field, name="changing"):
    source = place / f"{name}-{version}"
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT.format(version=version, name=name))
    (source / "fixture_changing.py").write_text(MODULE.format(field=field))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--upgrade"]
    argv = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(source)]
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0


RUDE = [
    ("mutating", "raised", ["mutating", "read-only"]),
    ("wrong_rank", "raised", ["wrong_rank", "format rule"]),
    ("dropping", "raised", ["dropping"]),
    ("quitting", "crashed", ["exit code 7"]),
]


async def test_a_step_with_bad_manners_fails_its_job_by_name(open_node, subtests):
    node = await open_node(max_resumes=0)
    await node.put_model()
    for name, kind, parts in RUDE:
        with subtests.test(name):
            await node.submit(name, transformations=step(name))
            failure = (await node.end(name))["failure"]
            assert failure["kind"] == kind
            for part in parts:
                assert part in failure["message"]
    await node.submit("good")
    assert (await node.end("good"))["state"] == "FINISHED"


async def test_what_a_step_forks_ends_with_its_worker(node):
    await node.submit("t", transformations=step("forking"))
    assert (await node.end("t"))["state"] == "FINISHED"
    folder = str(node.settings.plugin_folder)

    def left():
        running = psutil.process_iter(["cmdline", "environ"])
        workers = [one for one in running if "locex.worker" in (one.info["cmdline"] or [])]
        return [one for one in workers if folder in (one.info["environ"] or {}).values()]

    while left():  # noqa: ASYNC110 -- what was killed goes when the system says so; the time-out ends a wait in vain
        await asyncio.sleep(0.05)


async def test_a_step_that_hangs_is_ended_and_the_next_job_runs(open_node):
    node = await open_node(prepare_timeout=3, max_resumes=0)
    await node.put_model()
    await node.submit("t", transformations=step("lingering"))
    failure = (await node.end("t"))["failure"]
    assert failure["kind"] == "timed out"
    assert "LOCEX_PREPARE_TIMEOUT" in failure["remedy"]
    await node.submit("good")
    assert (await node.end("good"))["state"] == "FINISHED"


async def test_a_step_that_takes_all_memory_is_ended(node):
    await node.submit("t", transformations=step("hoarding"), resources={"memory_mb": 512})
    failure = (await node.end("t"))["failure"]
    assert failure["kind"] == "out of memory"
    assert (await node.call("GET", "/healthz"))["status"] == "ok"


async def test_a_name_that_is_taken_is_refused_until_the_site_decides(launch, tmp_path, install_tiny):
    folder = tmp_path / "plugins"
    service = await launch(LOCEX_PLUGIN_FOLDER=str(folder), LOCEX_ALLOWED_DISTRIBUTIONS="")
    node = service.node
    await install_tiny(folder)
    await node.put_model()
    await install(tmp_path, folder, version="1", field="factor", name="scale")
    problem = await node.submit("t", 409, transformations=step("scale"))
    assert problem["code"] == "plugin-duplicate"
    assert "locex-fixture-changing 1" in problem["detail"]
    assert "locex-fixture-tiny 1.0.0" in problem["detail"]


async def test_a_plugin_that_changes_its_fields_is_used_as_it_is_now(launch, tmp_path, install_tiny):
    folder = tmp_path / "plugins"
    service = await launch(LOCEX_PLUGIN_FOLDER=str(folder), LOCEX_ALLOWED_DISTRIBUTIONS="")
    node = service.node
    await install_tiny(folder)
    await node.put_model()
    await install(tmp_path, folder, version="1.0.0", field="old")
    await node.submit("before", transformations=step("changing", old=2))
    assert (await node.end("before"))["plugins"]["locex-fixture-changing"] == "1.0.0"

    await install(tmp_path, folder, version="2.0.0", field="new")
    problem = await node.submit("t", 422, transformations=step("changing", old=2))
    assert problem["errors"][0]["path"] == "/transformations/train/0/parameters/old"
    assert "new" in problem["errors"][0]["message"]
    (listed,) = [info for info in await node.call("GET", "/plugins") if info["name"] == "changing"]
    assert (listed["version"], [*listed["configuration"]["properties"]]) == ("2.0.0", ["new"])
    schemas = (await node.call("GET", "/openapi.json"))["components"]["schemas"]
    assert "new" in str(schemas["transform.changing"])
    await node.submit("after", transformations=step("changing", new=2))
    assert (await node.end("after"))["plugins"]["locex-fixture-changing"] == "2.0.0"
