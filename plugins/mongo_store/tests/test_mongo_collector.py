"""A collector over MongoDB keeps its trainings there, and goes on with them."""

from __future__ import annotations

import socket

import pytest

from locex.schemas.record import JobState

pytest.importorskip("locex_controller", reason="the collector is not installed")

from locex_controller.collector import Collector
from locex_controller.settings import CollectorSettings


@pytest.fixture
async def make_collector(standalone, emptied, make_store, tmp_path, monkeypatch):
    """Open a collector, as often as a test restarts it, over the same database and folder."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("FEDERATED_PORT", str(listener.getsockname()[1]))
    emptied(standalone)
    opened = []

    async def make():
        store = await make_store(standalone.url, folder="state")
        opened.append(Collector(CollectorSettings(state_folder=tmp_path / "state"), store))
        await opened[-1].open()
        return opened[-1]

    yield make
    await opened[-1].close()


async def test_a_training_goes_on_with_the_next_collector_and_ends(make_collector):
    first = await make_collector()
    run_id = (await first.start("1", {})).run_id
    await first.close()
    assert (await first.records.latest("1")).state is JobState.INTERRUPTED
    await first.store.close()
    collector = await make_collector()
    record = await collector.stop("1")
    assert (record.run_id, record.state, record.resumes) == (run_id, JobState.STOPPED, 1)
    states = [event.content["state"] for event in await collector.store.events(run_id)]
    assert (states[0], states[-1], states.count("INTERRUPTED")) == ("WAITING", "STOPPED", 1)
    assert (await collector.start("1", {})).state is JobState.WAITING
