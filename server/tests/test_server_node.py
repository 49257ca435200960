"""What a node tells of itself: capabilities, format, plugins, health, metrics, documentation."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

GETS = [
    "/capabilities",
    "/format",
    "/job/status",
    "/job/total",
    "/jobs",
    "/plugins",
    "/model",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
]


@pytest.fixture
async def node(open_node):
    return await open_node()


async def test_every_path_answers_with_and_without_the_slash_at_its_end(open_node):
    node = await open_node(allowed_distributions=["locex-fixture-tiny"])
    for path in GETS:
        contents = [await node.call("GET", spelling) for spelling in (path, f"{path}/")]
        if path not in {"/capabilities", "/metrics"}:
            assert contents[0] == contents[1]
    assert (await node.call("GET", "/nowhere", status=404))["remedy"]


async def test_capabilities_bear_the_names_of_the_public_description(node):
    found = await node.call("GET", "/capabilities")
    assert {"storage", "RAM", "GPU", "preinstalled_libraries", "available_models"} <= set(found)
    assert found["storage"] > 0
    assert found["RAM"] > 0
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["preinstalled_libraries"]["locex-core"] == "1.0.0"
    assert found["storage"] <= found["total_storage"]
    assert found["RAM"] <= found["total_memory"]
    assert bool(found["gpus"]) == found["GPU"]
    assert found["plugins"]["builder"]["tiny"] == "locex-fixture-tiny 1.0.0"


async def test_libraries_are_those_of_the_interpreter_that_runs_the_jobs(open_node):
    node = await open_node(worker_python=sys.executable)
    found = (await node.call("GET", "/capabilities"))["preinstalled_libraries"]
    assert found["locex-fixture-tiny"] == "1.0.0"  # of the plugin folder


async def test_an_interpreter_that_goes_away_is_told_wherever_it_is_asked(open_node, tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    node = await open_node(worker_python=str(interpreter))
    await node.put_model()
    interpreter.unlink()
    problem = await node.call("GET", "/capabilities", status=503)
    assert problem["code"] == "interpreter-unavailable"
    assert str(interpreter) in problem["detail"]
    while (await _status(node, "/format")) != 503:  # noqa: ASYNC110 -- what it said is kept for some seconds
        await asyncio.sleep(0.2)
    for answer in (node.call("GET", "/plugins", status=503), node.submit("t", 503)):
        assert (await answer)["code"] == "interpreter-unavailable"


async def _status(node, path):
    async with node.http.get(path) as response:
        return response.status


async def test_the_format_is_what_the_operators_file_states(node):
    stated = {"x": {"data_types": {"image": {"size": [28, 28]}}}, "y": {"data_types": {"categorical": {"size": 10}}}}
    folder = node.settings.configuration_folder
    folder.mkdir()
    (folder / "format.json").write_text(json.dumps(stated))
    found = await node.call("GET", "/format")
    assert found["x"]["data_types"]["image"]["size"] == [28, 28]
    assert found["y"]["data_types"]["categorical"]["size"] == [10]
    (folder / "format.json").write_text("{")
    assert "format.json" in (await node.call("GET", "/format", status=422))["detail"]


async def test_the_format_is_asked_of_the_data_source_again_when_the_folder_changes(open_node):
    node = await open_node(data_source="counting")
    folder = node.settings.data_folder
    problem = await node.call("GET", "/format", status=503)
    assert problem["code"] == "data-unavailable"
    assert problem["remedy"] == "put files there"
    (folder / "one").touch()
    first = (await node.call("GET", "/format"))["x"]["data_types"]["tabular"]
    assert first["size"] == [1]
    assert first["asked"] != os.getpid()
    while first != (again := (await node.call("GET", "/format"))["x"]["data_types"]["tabular"]):
        first = again  # the same file, told late by the system, may make it ask once more
    (folder / "two").touch()
    second = (await node.call("GET", "/format"))["x"]["data_types"]["tabular"]
    assert second["size"] == [2]
    assert second["asked"] != first["asked"]


async def test_a_source_that_is_not_there_is_told_with_those_that_are(open_node):
    node = await open_node(data_source="tape")
    problem = await node.call("GET", "/format", status=422)
    assert problem["code"] == "plugin-unknown"
    assert "gaussians" in problem["detail"]


async def test_plugins_are_listed_with_their_fields_and_the_broken_ones_with_their_error(open_node, settings):
    node = await open_node(denied_distributions=["locex-fixture-hanging", "locex-fixture-duplicate"])
    listed = await node.call("GET", "/plugins")
    found = {(info["kind"], info["name"], info["distribution"]): info for info in listed}
    sgd = found["optimizer", "tiny.sgd", "locex-fixture-tiny"]
    assert sgd["version"] == "1.0.0"
    assert sgd["library"] == "tiny"
    assert sgd["description"] == "A plain learning rate."
    assert sgd["configuration"]["properties"]["learning_rate"]["description"] == "The step size."
    assert sgd["error"] is None

    def fault(name):
        (info,) = (info for key, info in found.items() if key[1:] == name)
        return info["error"]["code"], info["error"]["message"]

    assert fault(("raising", "locex-fixture-raising"))[0] == "plugin-broken"
    assert "this plugin never loads" in fault(("raising", "locex-fixture-raising"))[1]
    assert fault(("exiting", "locex-fixture-exiting"))[0] == "plugin-crashed"
    assert "exit code 3" in fault(("exiting", "locex-fixture-exiting"))[1]
    assert fault(("hanging", "locex-fixture-hanging"))[0] == "plugin-refused"
    assert fault(("doubled", "locex-fixture-duplicate"))[0] == "plugin-refused"
    assert fault(("too_old", "locex-fixture-too-old"))[0] == "plugin-incompatible"
    assert found["transform", "doubled", "locex-fixture-duplicate-too"]["error"] is None
    assert found["store", "sqlite", "locex-core"]["error"] is None


async def test_health_readiness_and_metrics(node):
    assert await node.call("GET", "/healthz") == {"status": "ok"}
    assert await node.call("GET", "/readyz") == {"status": "ready", "checks": {"store": "ok"}}
    text = (await node.call("GET", "/metrics")).decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for name in ("free_storage", "free_memory"):
        assert float(lines[f"machine_capabilities_{name}"]) > 0
    assert lines["machine_capabilities_gpu"] in {"0.0", "1.0"}
    assert lines["locex_jobs_running"] == lines["locex_jobs_waiting"] == "0.0"
    assert lines['http_requests_total{method="GET",route="/healthz",status="200"}'] == "1.0"


async def test_documentation_comes_from_this_machine(node):
    page = (await node.call("GET", "/docs")).decode()
    assert "https://" not in page
    assert b"swagger" in (await node.call("GET", "/docs/swagger-ui-bundle.js")).lower()
