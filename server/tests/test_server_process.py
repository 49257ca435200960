"""The service as a process: how it starts, what it refuses, how it ends and what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from pathlib import Path

import psutil
import pytest


async def gone(processes):
    """Wait until none of the processes runs."""

    def running(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    while any(map(running, processes)):  # noqa: ASYNC110 -- nothing tells of processes that are not ours
        await asyncio.sleep(0.05)


def one_line(stderr, *parts):
    assert "Traceback" not in stderr
    for part in parts:
        assert part in stderr
    return len(stderr.strip().splitlines()) == 1


async def test_a_port_in_use_is_one_line(locex):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, stderr = await locex("serve", "--port", port)
    assert code == 1
    assert one_line(stderr, f"127.0.0.1:{port}", "the port is in use", "PORT")


async def test_a_state_folder_has_one_owner_and_a_data_folder_many(launch, locex, tmp_path):
    first = await launch()
    code, _, stderr = await locex("serve", "--port", 0)
    assert code == 1
    assert one_line(stderr, str(tmp_path / "state"), f"process {first.process.pid}", "a folder of its own")
    second = await launch(LOCEX_STATE_FOLDER=str(tmp_path / "other"))
    for service in (first, second):
        assert await service.node.call("GET", "/readyz")


@pytest.mark.parametrize(
    ("settings_", "parts"),
    [
        ({"HOST": "0.0.0.0"}, ["0.0.0.0", "LOCEX_API_TOKEN_FILE", "LOCEX_INSECURE"]),
        ({"LOCEX_STATE_FOLDER": "/proc/locex"}, ["/proc/locex", "a folder that this user may write to"]),
        ({"LOCEX_STORE": "cloud"}, ["no store named 'cloud'", "sqlite"]),
        ({"LOCEX_API_TOKEN_FILE": "/nowhere"}, ["token file /nowhere cannot be read"]),
        ({"LOCEX_MAX_JOBS": "many", "FEDERATED_PORT": "x"}, ["LOCEX_MAX_JOBS", "FEDERATED_PORT", "valid integer"]),
        ({"LOCEX_LOG_LEVEL": "LOUD"}, ["LOCEX_LOG_LEVEL"]),
    ],
)
async def test_settings_that_cannot_be_are_told_and_end_the_start(locex, settings_, parts):
    code, stdout, stderr = await locex("serve", "--port", 0, **settings_)
    assert code == 1
    assert stdout == ""
    one_line(stderr, *parts)


async def test_tokens_open_what_their_scope_allows(launch, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("# of this test\nread:reader\nrun:runner\nadmin:boss\n")
    tokens.chmod(0o600)
    service = await launch(LOCEX_API_TOKEN_FILE=str(tokens))
    call = service.node.call

    def bearer(token):
        return {"Authorization": f"Bearer {token}"}

    assert await call("GET", "/healthz")
    assert await call("GET", "/docs")
    for path in ("/metrics", "/openapi.json", "/jobs", "/job/total"):
        assert (await call("GET", path, 401))["code"] == "unauthorized"
        assert (await call("GET", path, 401, headers=bearer("guess")))["code"] == "unauthorized"
        await call("GET", path, headers=bearer("reader"))
    forbidden = await call("POST", "/job/config/t", 403, json={}, headers=bearer("reader"))
    assert forbidden["code"] == "forbidden"
    assert "scope run" in forbidden["detail"]
    await call("POST", "/job/config/t", 422, json={}, headers=bearer("runner"))
    await call("DELETE", "/model/m/1", 403, headers=bearer("runner"))
    await call("DELETE", "/model/m/1", 404, headers=bearer("boss"))


async def test_sigterm_leaves_no_process_and_the_job_goes_on_after_a_restart(launch):
    service = await launch(LOCEX_SPARE_WORKER="1", FIXTURE_ROUND_SECONDS="2")
    await service.node.put_model()
    await service.node.submit()
    await service.node.until("EVALUATING")
    family = service.family()
    assert len(family) >= 3
    code, stderr = await service.end(signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in stderr
    await gone(family)

    waiting = await launch(LOCEX_RESUME="0")
    assert (await waiting.node.call("GET", "/job/t"))["state"] == "INTERRUPTED"
    assert (await waiting.node.call("GET", "/job/status"))["t"]["state"] == "INTERRUPTED"
    await waiting.end(signal.SIGTERM)

    again = await launch()
    record = await again.node.end()
    assert record["state"] == "FINISHED", record["failure"]
    assert record["resumes"] == 1
    states = await again.node.states()
    at = states.index("INTERRUPTED")
    assert states[at : at + 4] == ["INTERRUPTED", "QUEUED", "CONFIGURING", "PREPARING"]


async def test_after_kill_9_the_worker_ends_and_the_job_goes_on_after_a_restart(launch):
    service = await launch(FIXTURE_ROUND_SECONDS="2")
    await service.node.put_model()
    await service.node.submit()
    record = await service.node.until("EVALUATING")
    family = service.family()
    assert record["worker"]["pid"] in [process.pid for process in family]
    code, _ = await service.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    await gone(family)

    again = await launch()
    record = await again.node.end()
    assert record["state"] == "FINISHED", record["failure"]
    assert [known["round"] for known in record["history"]] == [1, 2, 3]
    assert "INTERRUPTED" in await again.node.states()


async def test_no_framework_and_no_plugin_ever_enters_the_service(launch):
    service = await launch(LOCEX_ALLOWED_DISTRIBUTIONS="locex-fixture-tiny,locex-fixture-raising")
    node = service.node
    await node.put_model()
    await node.submit()
    assert (await node.end())["state"] == "FINISHED"
    for path in ("/plugins", "/openapi.json", "/format", "/capabilities", "/docs"):
        await node.call("GET", path)
    mapped = await asyncio.to_thread(Path(f"/proc/{service.process.pid}/maps").read_text)
    assert "pydantic_core" in mapped
    for library in ("numpy", "torch", "tensorflow", "safetensors", "grpc"):
        assert library not in mapped


async def test_format_file_and_settings_of_the_older_services_are_read(launch, tmp_path):
    folder = tmp_path / "configuration"
    folder.mkdir()
    (folder / "setup.json").write_text(json.dumps({"data_loader": "counting"}))
    data = tmp_path / "elsewhere"
    data.mkdir()
    (data / "file").touch()
    names = {"TOTAL_LOCAL_OPERATIONS": "2", "DATA_FOLDER": str(data), "FEDERATED_PORT": "9000"}
    service = await launch(**names)
    found = await service.node.call("GET", "/format")
    assert found["x"]["data_types"]["tabular"]["size"] == [1]
