"""A node's jobs over real worker processes, with fixture distributions installed in a folder of their own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from locex.jobs.service import JobService
from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host
from locex.plugins.installed import Installed
from locex.schemas.model import StoredModel
from locex.schemas.record import JobState
from locex.settings import NodeSettings
from locex.store.protocol import StoreContext
from locex.store.sqlite_store import SqliteStore

DISTRIBUTIONS = Path(__file__).parent / "distributions"


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory):
    """All fixture distributions, installed with pip."""
    folder = tmp_path_factory.mktemp("plugins")
    install(folder, *DISTRIBUTIONS.iterdir())
    return folder


def install(folder, *sources):
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, sources)], check=True)


@pytest.fixture
def settings(tmp_path, plugin_folder):
    return NodeSettings(
        state_folder=tmp_path / "state",
        data_folder=tmp_path,
        data_source="gaussians",
        federation="loopback",
        plugin_folder=plugin_folder,
        denied_distributions=["locex-fixture-exiting", "locex-fixture-hanging", "locex-fixture-greedy"],
        spare_worker=False,
        plugin_timeout=60,
    )


@pytest.fixture
def children():
    """Tell the processes that were started since the test began, and still run."""

    def running():
        return psutil.Process().children(recursive=True)

    before = {child.pid for child in running()}  # those of fixtures that outlive tests
    return lambda: [child for child in running() if child.pid not in before]


@pytest.fixture
def eventually():
    """Wait until a condition holds; the test's own time-out ends a wait for what never comes."""

    async def wait(condition):
        while not condition():  # noqa: ASYNC110 -- what is waited for happens in other processes
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
async def open_store(tmp_path):
    """Open embedded stores in folders of the test's; at its end they are closed."""
    async with AsyncExitStack() as stack:

        async def opened(name="state"):
            store = SqliteStore(tmp_path / name, sweep_grace=0)
            await store.open()
            stack.push_async_callback(store.close)
            return store

        yield opened


class Node:
    """A job service over an embedded store."""

    def __init__(self, settings, store, jobs):
        self.settings, self.store, self.jobs = settings, store, jobs

    async def submit(self, path="t", /, **changes):
        return await self.jobs.submit(path, job(**changes))

    async def end(self, training_id="t"):
        """Wait until the newest run is over."""
        record = await self.jobs.latest(training_id)
        async for _ in self.jobs.follow(record.run_id):
            pass
        return await self.jobs.latest(training_id)

    async def until(self, state, training_id="t"):
        """Wait until the newest run was announced to be in a state."""
        record = await self.jobs.latest(training_id)
        async for event in self.jobs.follow(record.run_id):
            if event.kind == "state" and event.content["state"] == state:
                return await self.jobs.latest(training_id)
        raise AssertionError(f"the run never was {state}")

    async def states(self, training_id="t"):
        record = await self.jobs.latest(training_id)
        events = await self.store.events(record.run_id)
        return [event.content["state"] for event in events if event.kind == "state"]


@pytest.fixture
def open_node(settings):
    """Open a node, as often as a test restarts it, over the same state folder."""

    @asynccontextmanager
    async def opened(**changes):
        chosen = settings.model_copy(update=changes)
        chosen.state_folder.mkdir(parents=True, exist_ok=True)
        host = Host()
        plugin = host.configure(host.load(read_catalog().find("store", chosen.store)), {})
        store = host.store(plugin, StoreContext(chosen.state_folder, chosen.store_url))
        await store.open()
        await _put_model(store)
        jobs = JobService(chosen, store, Installed(chosen.policy, folders=chosen.plugin_folders))
        await jobs.start()
        try:
            yield Node(chosen, store, jobs)
        finally:
            await jobs.close()
            await store.close()

    return opened


@pytest.fixture
async def node(open_node):
    async with open_node() as node:
        yield node


async def _put_model(store):
    async def content():
        yield b'{"features": 4, "classes": 3}'

    blob = await store.write_blob(content(), limit=1000)
    model = {"model_name": "m", "model_version": "1", "meta": {"library": "tiny"}, "digest": blob.digest}
    await store.put_model(StoredModel.model_validate(model | {"size": blob.size, "created": 0, "updated": 0}))


def job(**changes):
    """A small job for the fixture plugins."""
    content = {
        "server_address": "loop:1",
        "model_name": "m",
        "model_version": "1",
        "num_rounds": 3,
        "eval_metrics": ["accuracy"],
        "config": [{"batch_size": 32, "epochs": 2}],
        "optimizer_config": {"optimizer": "sgd", "learning_rate": 0.3},
        "privacy-mechanisms": {},
    }
    return content | changes


def over(record):
    return record.state in {JobState.FINISHED, JobState.FAILED, JobState.STOPPED}
