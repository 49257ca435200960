"""A service over MongoDB does a job as one over SQLite does, also while mongod is killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import aiohttp
import psutil
import pytest

pytest.importorskip("locex_server", reason="the service is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TINY = Path(__file__).parents[3] / "core/tests/distributions/tiny"
MODEL = {"model_name": "m", "model_version": "1", "meta": {"library": "tiny"}}
JOB = {
    "server_address": "loop:1",
    "model_name": "m",
    "model_version": "1",
    "num_rounds": 8,
    "eval_metrics": ["accuracy"],
    "config": [{"batch_size": 32, "epochs": 2}],
    "optimizer_config": {"optimizer": "sgd", "learning_rate": 0.3},
    "privacy-mechanisms": {},
}

CHECKPOINTS = ("checkpoints", "checkpoints.files", "checkpoints.chunks")


@pytest.fixture(scope="module")
def plugin_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(TINY)], check=True)
    return folder


class Service:
    def __init__(self, process, session):
        self.process, self.session = process, session

    async def call(self, method, path, status=200, **arguments):
        async with self.session.request(method, path, **arguments) as response:
            content = await response.read()
            assert response.status == status, content
            if status == 503 and path != "/readyz":
                assert int(response.headers["Retry-After"]) >= 1
            return json.loads(content) if response.content_type.endswith("json") else content

    async def post_job(self, training_id="t"):
        await self.call("POST", "/model/", json=MODEL)
        await self.call("PUT", "/model/m/1", 204, data=b'{"features": 4, "classes": 3}')
        await self.call("POST", f"/job/config/{training_id}/", json=JOB)

    async def until(self, accepts, path="/job/t", status=200):
        while True:
            content = await self.call("GET", path, status)
            if accepts(content):
                return content
            await asyncio.sleep(0.1)

    async def events(self):
        content = (await self.call("GET", "/job/t/events")).decode()
        blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in content.strip().split("\n\n")]
        return [(int(block["id"]), json.loads(block["data"])) for block in blocks if "data" in block]

    async def end(self, number=signal.SIGTERM):
        await self.session.close()
        if self.process.returncode is None:
            self.process.send_signal(number)
        return (await self.process.communicate())[1].decode()


@pytest.fixture
async def launch(tmp_path, plugin_folder):
    services = []

    async def launched(state="state", **environment):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOCEX_")}
        chosen = inherited | {
            "DATA_FOLDER": str(tmp_path),
            "LOCEX_STATE_FOLDER": str(tmp_path / state),
            "LOCEX_DATA_SOURCE": "gaussians",
            "LOCEX_FEDERATION": "loopback",
            "LOCEX_PLUGIN_FOLDER": str(plugin_folder),
            "LOCEX_SPARE_WORKER": "0",
            "FIXTURE_ROUND_SECONDS": "0.5",
        }
        argv = [sys.executable, "-m", "locex.cli", "serve", "--port", "0"]
        process = await asyncio.create_subprocess_exec(*argv, env=chosen | environment, stdout=-1, stderr=-1)
        line = (await process.stdout.readline()).decode()
        assert line.startswith("listening on "), (await process.communicate())[1].decode()
        service = Service(process, aiohttp.ClientSession(line.removeprefix("listening on ").strip()))
        services.append(service)
        return service

    yield launched
    for service in services:
        await service.end(signal.SIGKILL)


def outcome(record):
    """Return what is the same whatever the store."""
    fields = ("state", "round", "rounds", "configuration", "library", "plugins", "warnings", "deaths", "resumes")
    return {name: record[name] for name in fields} | {"rounds run": [one["round"] for one in record["history"]]}


async def finished(service):
    record = await service.until(lambda record: record["state"] in {"FINISHED", "FAILED"})
    assert record["state"] == "FINISHED", record["failure"]
    return record


async def test_a_job_is_done_as_with_the_embedded_store(launch, replica_set, emptied):
    emptied(replica_set, "locex")
    records, told, models = [], [], []
    for state, environment in (
        ("embedded", {}),
        ("shared", {"DATABASE_NAME": "127.0.0.1", "DB_PORT": str(replica_set.port)}),
    ):
        service = await launch(state, FIXTURE_ROUND_SECONDS="0", **environment)
        await service.post_job()
        records.append(outcome(await finished(service)))
        told.append([(at, event["kind"], event["content"].get("state")) for at, event in await service.events()])
        models.append(await service.call("GET", "/job/t/model"))
        await service.end()
    assert records[0] == records[1]
    assert told[0] == told[1]
    assert models[0] == models[1]
    with replica_set.client() as client:
        assert client.locex.jobs.count_documents({"state": "FINISHED"}) == 1


async def test_mongod_dies_in_the_midst_of_a_job_and_comes_back(launch, own_mongod, tmp_path):
    server = own_mongod(replica_set=True)
    secret = tmp_path / "url"
    secret.write_text(f"{server.url}?serverSelectionTimeoutMS=500", encoding="utf-8")
    service = await launch(LOCEX_STORE_URL_FILE=str(secret), LOCEX_HEARTBEAT_TIMEOUT="10", FIXTURE_ROUND_SECONDS="1")
    await service.post_job()
    record = await service.until(lambda record: record["round"] >= 1)
    worker = psutil.Process(record["worker"]["pid"])

    server.kill()
    for method, path in (("GET", "/job/t"), ("GET", "/jobs"), ("GET", "/model/"), ("DELETE", "/job/t")):
        assert (await service.call(method, path, 503))["code"] == "store-unavailable"
    assert (await service.call("POST", "/job/config/u/", 503, json=JOB))["code"] == "store-unavailable"
    assert (await service.call("PUT", "/model/m/1", 503, data=b"x"))["code"] == "store-unavailable"
    assert (await service.call("GET", "/readyz", 503))["checks"]["store"] == "store-unavailable"
    await service.call("GET", "/healthz")
    assert worker.is_running(), "the job goes on"
    await asyncio.sleep(11)  # longer than the worker may be silent
    await asyncio.to_thread(server.start)

    record = await finished(service)
    await service.until(lambda content: content["checks"]["store"] == "ok", "/readyz")
    assert [one["round"] for one in record["history"]] == list(range(1, 9))
    assert (record["deaths"], record["resumes"]) == (0, 0)
    events = await service.events()
    assert [at for at, _ in events] == list(range(1, len(events) + 1))
    states = [event["content"]["state"] for _, event in events if event["kind"] == "state"]
    rounds = ["TRAINING", "WAITING", "EVALUATING", "WAITING"] * 8
    assert [state for state, _ in groupby(states)] == [
        "QUEUED",
        "CONFIGURING",
        "PREPARING",
        "WAITING",
        *rounds,
        "FINISHED",
    ]
    page = await service.call("GET", "/jobs")
    assert page["total"] == 1
    assert await service.call("GET", "/job/t/model")
    assert "Traceback" not in await service.end()


async def test_a_killed_service_takes_its_job_up_and_another_node_leaves_it(launch, standalone, emptied):
    emptied(standalone, "locex")
    url = {"LOCEX_STORE_URL": standalone.url}
    service = await launch(**url)
    await service.post_job()
    await service.until(lambda record: record["round"] >= 1)
    await service.end(signal.SIGKILL)
    other = await launch("other", **url)
    assert await other.call("GET", "/job/total") == 0
    assert [model["model_name"] for model in await other.call("GET", "/model/")] == ["m"]
    again = await launch(**url)
    record = await finished(again)
    assert record["resumes"] == 1
    assert await other.call("GET", "/job/total") == 0


async def test_a_node_that_lost_its_folder_goes_on_with_fresh_optimizer_state(launch, standalone, emptied):
    emptied(standalone, "locex")
    environment = {"LOCEX_STORE_URL": standalone.url, "LOCEX_NODE": "hospital"}
    service = await launch(**environment)
    await service.post_job()
    await service.until(lambda record: record["round"] >= 1)
    await service.end()
    again = await launch("another", **environment)
    record = await finished(again)
    assert record["resumes"] == 1
    assert "no checkpoint was found: optimizer and scheduler begin anew" in record["warnings"]


async def test_a_node_that_lost_its_folder_goes_on_with_the_stored_checkpoint(launch, standalone, emptied):
    emptied(standalone, "locex")
    environment = {"LOCEX_STORE_URL": standalone.url, "LOCEX_NODE": "hospital", "LOCEX_CHECKPOINTS": "store"}
    service = await launch(**environment)
    await service.post_job()
    await service.until(lambda record: record["round"] >= 1)
    await service.end()
    again = await launch("another", **environment)
    record = await finished(again)
    assert (record["resumes"], record["warnings"]) == (1, [])
    with standalone.client() as client:
        while any(client.locex[name].count_documents({}) for name in CHECKPOINTS):  # noqa: ASYNC110 -- another process's
            await asyncio.sleep(0.1)


async def test_a_store_that_is_not_there_at_the_start_is_one_line(launch):
    with pytest.raises(AssertionError) as caught:
        await launch(LOCEX_STORE_URL="mongodb://locex:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=200")
    text = str(caught.value)
    assert "the database locex at 127.0.0.1:1 cannot be used: no server answers" in text
    assert "hunter2" not in text
    assert "Traceback" not in text


async def test_a_folder_moves_into_a_database_and_the_node_goes_on_there(launch, standalone, emptied, tmp_path):
    emptied(standalone, "locex")
    service = await launch(FIXTURE_ROUND_SECONDS="0")
    await service.post_job()
    before = await finished(service)
    events, trained = await service.events(), await service.call("GET", "/job/t/model")
    await service.end()

    environment = os.environ | {"LOCEX_STATE_FOLDER": str(tmp_path / "state")}
    for arguments in (
        ["sqlite:", standalone.url],
        ["sqlite:", standalone.url],
        [standalone.url, f"sqlite:{tmp_path}/b"],
    ):
        argv = [sys.executable, "-m", "locex.cli", "store", "migrate", *arguments]
        done = await asyncio.to_thread(subprocess.run, argv, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"2 models, 1 jobs, {len(events)} events, 0 ledgers, 2 blobs" in done.stdout

    for url in (standalone.url, f"sqlite:{tmp_path}/b"):
        moved = await launch(LOCEX_STORE_URL=url)
        assert await moved.call("GET", "/job/t") == before
        assert await moved.events() == events
        assert await moved.call("GET", "/job/t/model") == trained
        argv = [sys.executable, "-m", "locex.cli", "store", "migrate", standalone.url, f"sqlite:{tmp_path}/c"]
        done = await asyncio.to_thread(subprocess.run, argv, env=environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert f"in use by the process {moved.process.pid}" in done.stderr
        await moved.end()
