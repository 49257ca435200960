"""What becomes of trainings when their records cannot be written."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from locex.errors import StoreUnavailable
from locex.processes.child import identity_of
from locex.schemas.record import JobState
from locex.store.sqlite_store import SqliteStore
from locex_controller.collector import Collector
from locex_controller.settings import CollectorSettings


class FaultyStore(SqliteStore):
    """Keeps the last record of the state ``on``; when one is written raises ``faults`` one by one, or tells it late."""

    on = None
    faults = ()
    last = None
    telling = None

    async def save_job(self, record, kind, content):
        if record.state is self.on:
            self.last = record
            if self.faults:
                raise self.faults.pop(0)
        event = await super().save_job(record, kind, content)
        if record.state is self.on and self.telling:
            await self.telling.wait()
        return event


@pytest.fixture
async def collector(tmp_path, collector_port, monkeypatch):
    monkeypatch.setenv("FEDERATED_PORT", str(collector_port))
    monkeypatch.setenv("LOCEX_API_TOKEN_FILE", str(tmp_path / "token"))
    store = FaultyStore(tmp_path / "store", sweep_grace=0)
    await store.open()
    collector = Collector(CollectorSettings(state_folder=tmp_path / "state", max_trainings=1), store)
    yield collector
    await collector.close()
    await store.close()


async def until(collector, state):
    while True:
        record = await collector.records.latest("1")
        if record.state is state:
            return record
        await asyncio.sleep(0.02)


def environment_of(pid):
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_write_is_tried_again_while_the_store_is_down(collector):
    record = await collector.start("1", {})
    collector.store.on, collector.store.faults = JobState.STOPPED, [StoreUnavailable("the disk is full")]
    assert (await collector.stop("1")).state is JobState.STOPPED
    assert collector.store.faults == []
    states = [event.content["state"] for event in await collector.store.events(record.run_id)]
    assert (states[0], states[-1], states.count("STOPPED")) == ("WAITING", "STOPPED", 1)


async def test_a_training_that_cannot_be_followed_fails_and_gives_its_place_back(collector):
    await collector.start("1", {})
    collector.store.on, collector.store.faults = JobState.INTERRUPTED, [RuntimeError("broken")]
    os.kill(collector.pid("1"), signal.SIGKILL)
    record = await until(collector, JobState.FAILED)
    assert (record.failure.code, record.failure.message) == ("internal", "RuntimeError: broken")
    assert (await collector.start("1", {})).state is JobState.WAITING


async def test_a_training_that_was_read_to_be_over_can_be_started_anew(collector):
    """Although the collector itself has not heard yet that the record of its end is written."""
    first = await collector.start("1", {})
    collector.store.on, collector.store.telling = JobState.STOPPED, asyncio.Event()
    stopping = asyncio.create_task(collector.stop("1"))
    await until(collector, JobState.STOPPED)
    starting = asyncio.create_task(collector.start("1", {}))
    assert not (await asyncio.wait([starting], timeout=0.1))[0]
    collector.store.telling.set()
    assert (await starting).run_id != first.run_id
    await stopping


@pytest.mark.parametrize("fault", [StoreUnavailable("the disk is full"), RuntimeError("broken")])
async def test_a_training_whose_record_cannot_begin_leaves_no_process(collector, tmp_path, fault):
    collector.store.on, collector.store.faults = JobState.WAITING, [fault]
    with pytest.raises(type(fault)):
        await collector.start("1", {})
    assert identity_of(collector.store.last.worker["pid"]) is None
    assert list((tmp_path / "state" / "trainings").iterdir()) == []


async def test_the_process_does_not_see_the_services_secrets(collector):
    await collector.start("1", {})
    environment = environment_of(collector.pid("1"))
    assert b"FEDERATED_PORT=" in environment
    assert b"LOCEX_API_TOKEN_FILE=" not in environment
