"""A store that is lost for a while: what waits for it, what does not, and what is not taken for granted."""

from __future__ import annotations

import asyncio
import time

import pytest

from locex.errors import StoreUnavailable
from locex.jobs.registry import Registry
from locex.jobs.results import keep_model
from locex.schemas.record import JobState
from locex.testing.store_contract import job


class Flaky:
    """A store that fails calls: before they are done, or after, as when only the answer is lost."""

    def __init__(self, store):
        self._store = store
        self.down = False
        self.losing = set()

    def __getattr__(self, name):
        async def call(*arguments, **given):
            if self.down:
                raise StoreUnavailable("down")
            answer = await getattr(self._store, name)(*arguments, **given)
            if name in self.losing:
                self.losing.discard(name)
                raise StoreUnavailable("the answer was lost")
            return answer

        return call


@pytest.fixture
async def store(open_store, monkeypatch):
    monkeypatch.setattr("locex.jobs.registry._RETRY", 0.02)
    return Flaky(await open_store())


async def test_a_job_that_was_refused_is_not_there_although_it_was_written(store):
    registry = Registry(store)
    store.losing.add("save_job")
    with pytest.raises(StoreUnavailable):
        await registry.create(job("r1"))
    async with asyncio.timeout(10):
        async for event in registry.follow("r1"):
            last = event
    assert last.content["state"] == "STOPPED"
    assert (await registry.get("r1")).state is JobState.STOPPED
    await registry.close()


async def test_a_job_that_was_refused_and_never_written_stays_away(store, eventually):
    registry = Registry(store)
    store.down = True
    with pytest.raises(StoreUnavailable):
        await registry.create(job("r1"))
    store.down = False
    await eventually(lambda: not registry._withdrawing)
    assert await store.get_job("r1") is None


async def test_the_end_of_a_service_does_not_wait_for_a_lost_store(store):
    registry = Registry(store)
    store.down = True
    with pytest.raises(StoreUnavailable):
        await registry.create(job("r1"))
    async with asyncio.timeout(5):
        await registry.close()


async def test_a_claim_whose_answer_was_lost_is_ours(store):
    registry = Registry(store)
    await registry.create(job("r1"))
    store.losing.add("claim_job")
    assert await registry.claim("r1")


async def test_a_trained_model_whose_answer_was_lost_is_stored_once(store, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    configuration = {"server_address": "a:1", "model_name": "m", "model_version": "1"}
    record = job("r1", configuration=configuration)
    store.losing.add("put_model")
    with pytest.raises(StoreUnavailable):
        await keep_model(store, record, [tmp_path / "model.pt"])
    kept = await keep_model(store, record, [tmp_path / "model.pt"])
    (model,) = await store.list_models()
    assert model.model_version == kept["model_version"]


async def test_a_job_over_a_lost_store_goes_on_and_no_deadline_passes(node, monkeypatch):
    """The store is away for longer than the job's round_timeout; the worker is not blamed."""
    monkeypatch.setattr("locex.jobs.registry._RETRY", 0.1)
    monkeypatch.setattr("locex.jobs.run._WATCH", 0.1)
    monkeypatch.setenv("FIXTURE_ROUND_SECONDS", "1.5")
    accepted = await node.submit(resources={"round_timeout": 1})
    await node.until("TRAINING")
    run_id = accepted.record.run_id
    down = time.monotonic() + 4
    save_job = node.store.save_job

    async def lost(*arguments):
        if time.monotonic() < down:
            raise StoreUnavailable("down")
        return await save_job(*arguments)

    monkeypatch.setattr(node.store, "save_job", lost)
    record = await node.end()
    assert time.monotonic() > down
    assert record.state is JobState.FINISHED, record.failure
    assert (record.run_id, record.deaths, record.round) == (run_id, 0, 3)
    events = await node.store.events(run_id)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
