"""The service over HTTP, in this process or as one of its own, with fixture plugins in a folder of their own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import numpy as np
import psutil
import pytest
from aiohttp.test_utils import TestClient, TestServer

from locex.settings import NodeSettings
from locex_server.app import init_app

HERE = Path(__file__).parent
DISTRIBUTIONS = [*(HERE.parents[1] / "core/tests/distributions").iterdir(), *(HERE / "distributions").iterdir()]
DANGEROUS = ["locex-fixture-exiting", "locex-fixture-hanging", "locex-fixture-greedy"]
WEIGHTS = b'{"features": 4, "classes": 3}'


def pip(command, *arguments):
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", command, *options, *map(str, arguments)], check=True)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """All fixture distributions, built."""
    folder = tmp_path_factory.mktemp("wheels")
    pip("wheel", "--wheel-dir", folder, *DISTRIBUTIONS)
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory, wheels):
    """All fixture distributions, installed with pip."""
    folder = tmp_path_factory.mktemp("plugins")
    pip("install", "--target", folder, *wheels)
    return folder


@pytest.fixture
def install_tiny(wheels):
    """Install the fixture library into a folder."""
    (tiny,) = (wheel for wheel in wheels if wheel.name.startswith("locex_fixture_tiny-"))
    return lambda folder: asyncio.to_thread(pip, "install", "--target", folder, tiny)


@pytest.fixture
def settings(tmp_path, plugin_folder):
    (tmp_path / "data").mkdir()
    return NodeSettings(
        state_folder=tmp_path / "state",
        data_folder=tmp_path / "data",
        configuration_folder=tmp_path / "configuration",
        data_source="gaussians",
        federation="loopback",
        plugin_folder=plugin_folder,
        allowed_distributions=[f"locex-fixture-{source.name.replace('_', '-')}" for source in DISTRIBUTIONS],
        denied_distributions=DANGEROUS,
        spare_worker=False,
    )


@pytest.fixture
def write_rows(settings):
    """Write the data of the source ``rows``."""

    def write(width):
        np.save(settings.data_folder / "x.npy", np.zeros((10, width), np.float32))
        np.save(settings.data_folder / "y.npy", np.zeros(10, np.int64))

    return write


class Node:
    """A caller of a service; `submit` posts a small job for the fixture plugins."""

    def __init__(self, http, settings=None):
        self.http, self.settings = http, settings

    async def call(self, method, path, status=200, **arguments):
        """Return the JSON, or else the bytes, of an answer with the expected status."""
        async with self.http.request(method, path, **arguments) as response:
            content = await response.read()
            assert response.status == status, content
            return json.loads(content) if response.content_type.endswith("json") else content

    async def put_model(self, name="m", version="1", library="tiny", content=WEIGHTS):
        await self.call("POST", "/model/", json=model(name, version, library))
        await self.call("PUT", f"/model/{name}/{version}", status=204, data=content)

    async def submit(self, training_id="t", status=200, /, **changes):
        content = {key: value for key, value in (JOB | changes).items() if value is not ABSENT}
        return await self.call("POST", f"/job/config/{training_id}/", status, json=content)

    async def events(self, training_id="t", *, after=None, until=None):
        """Return a run's events to its end, or to the first that ``until`` accepts."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        found, event = [], {}
        async with self.http.get(f"/job/{training_id}/events", headers=headers) as response:
            assert response.content_type == "text/event-stream"
            async for line in response.content:
                key, _, value = line.decode().strip().partition(": ")
                if key in {"id", "event", "data"}:
                    event[key] = json.loads(value) if key == "data" else value
                elif not key and "data" in event:
                    found.append(event)
                    if until and until(event):
                        break
                    event = {}
        return found

    async def until(self, state, training_id="t"):
        events = await self.events(training_id, until=lambda event: _state(event) == state)
        assert _state(events[-1]) == state, events[-1]
        return await self.call("GET", f"/job/{training_id}")

    async def states(self, training_id="t"):
        """Return the states of a run, to its end."""
        return [state for event in await self.events(training_id) if (state := _state(event))]

    async def end(self, training_id="t"):
        await self.events(training_id)
        return await self.call("GET", f"/job/{training_id}")


ABSENT = object()
JOB = {
    "server_address": "loop:1",
    "model_name": "m",
    "model_version": "1",
    "num_rounds": 3,
    "eval_metrics": ["accuracy"],
    "config": [{"batch_size": 32, "epochs": 2}],
    "optimizer_config": {"optimizer": "sgd", "learning_rate": 0.3},
    "privacy-mechanisms": {},
}


def model(name="m", version="1", library="tiny"):
    return {"model_name": name, "model_version": version, "meta": {"library": library}}


def _state(event):
    return event["data"]["content"]["state"] if event["event"] == "state" else None


@pytest.fixture
def absent():
    """Take a field out of the job."""
    return ABSENT


@pytest.fixture
async def open_node(settings):
    """Open the application in this process, as often as a test wants to."""
    async with AsyncExitStack() as stack:

        async def opened(**changes):
            chosen = NodeSettings(**settings.model_dump() | changes)
            client = TestClient(TestServer(init_app(chosen)))
            return Node(await stack.enter_async_context(client), chosen)

        yield opened


@pytest.fixture
async def node(open_node):
    """The application with a model in its store."""
    node = await open_node()
    await node.put_model()
    return node


class Service:
    """A service in a process of its own."""

    def __init__(self, process, url, session):
        self.process, self.url = process, url
        self.node = Node(session)

    def family(self):
        """Return the processes that live for it, itself too."""
        it = psutil.Process(self.process.pid)
        return [it, *it.children(recursive=True)]

    async def end(self, number):
        """End it by a signal; return its exit code and what it wrote to standard error."""
        await self.node.http.close()
        if self.process.returncode is None:
            self.process.send_signal(number)
        _, stderr = await self.process.communicate()
        return self.process.returncode, stderr.decode()


@pytest.fixture
def environment(settings):
    """The settings as a process gets them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOCEX_")}
    return inherited | {
        "DATA_FOLDER": str(settings.data_folder),
        "LOCEX_STATE_FOLDER": str(settings.state_folder),
        "LOCEX_CONFIGURATION_FOLDER": str(settings.configuration_folder),
        "LOCEX_DATA_SOURCE": settings.data_source,
        "LOCEX_FEDERATION": settings.federation,
        "LOCEX_PLUGIN_FOLDER": str(settings.plugin_folder),
        "LOCEX_ALLOWED_DISTRIBUTIONS": ",".join(settings.allowed_distributions),
        "LOCEX_DENIED_DISTRIBUTIONS": ",".join(settings.denied_distributions),
        "LOCEX_SPARE_WORKER": "0",
    }


@pytest.fixture
def locex(environment):
    """Run the command line to its end; return its exit code, standard output and standard error."""

    async def run(*arguments, **changes):
        argv = [sys.executable, "-m", "locex.cli", *map(str, arguments)]
        chosen = {name: value for name, value in (environment | changes).items() if value is not None}
        process = await asyncio.create_subprocess_exec(*argv, env=chosen, stdin=-3, stdout=-1, stderr=-1)
        try:
            stdout, stderr = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode, stdout.decode(), stderr.decode()

    return run


@pytest.fixture
async def launch(environment):
    """Start services on free ports; all end with the test."""
    services = []

    async def launched(*, token=None, **changes):
        argv = [sys.executable, "-m", "locex.cli", "serve", "--port", "0"]
        process = await asyncio.create_subprocess_exec(*argv, env=environment | changes, stdout=-1, stderr=-1)
        line = (await process.stdout.readline()).decode()
        url = line.removeprefix("listening on ").strip()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        service = Service(process, url, aiohttp.ClientSession(url or None, headers=headers))
        services.append(service)
        assert line.startswith("listening on "), (await process.communicate())[1].decode()
        return service

    yield launched
    for service in services:
        await service.end(9)
