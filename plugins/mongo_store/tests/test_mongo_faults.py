"""mongod dies, comes back, or never was: what is told, what is lost (nothing acknowledged), what is left (nothing)."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading

import pytest

from locex.errors import StoreUnavailable, TooLarge
from locex.jobs.registry import Registry
from locex.schemas.record import JobState
from locex.testing.store_contract import checkpoint, chunks, job, model


def kinds(*, quick):
    """Over both kinds of deployment, of which one is enough for a quick run."""
    return pytest.mark.parametrize(
        "replica_set",
        [
            pytest.param(name == "replica_set", id=name, marks=[] if name == quick else pytest.mark.slow)
            for name in ("replica_set", "standalone")
        ],
    )


async def test_a_server_that_is_not_there_is_told_in_time(make_store):
    with pytest.raises(StoreUnavailable) as caught:
        await make_store("mongodb://127.0.0.1:1/", selection_timeout=0.2)
    assert caught.value.message == "the database test at 127.0.0.1:1 cannot be used: no server answers"
    assert caught.value.retry_after == 5


async def test_a_closed_store_is_unavailable(standalone, make_store):
    store = await make_store(standalone.url)
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.put_job(job("r1"))


@kinds(quick="replica_set")
async def test_what_was_acknowledged_survives_sigkill(own_mongod, make_store, answers, replica_set):
    server = own_mongod(replica_set=replica_set)
    store = await make_store(server.url, selection_timeout=2)
    acknowledged = []
    with pytest.raises(StoreUnavailable):  # noqa: PT012 -- which of the writes fails is up to the moment of the kill
        for number in itertools.count():
            if number == 4:
                threading.Timer(0.2, server.process.kill).start()
            await store.save_job(job(f"r{number}"), "log", {"n": number})
            await store.append_event("r", "log", {"n": number})
            blob = await store.write_blob(chunks(number.to_bytes(4, "big") * 75_000), limit=1_000_000)
            await store.put_model(model("m", str(number), digest=blob.digest))
            await store.put_checkpoint("r", chunks(number.to_bytes(4, "big") * 75_000), limit=1_000_000)
            await store.append_ledger("d", "example", number, {"n": number})
            acknowledged.append(blob.digest)
    server.kill()
    await asyncio.to_thread(server.start)
    await answers(store)

    known = len(acknowledged)
    assert [event.content["n"] for event in await store.events("r", limit=9999)][:known] == list(range(known))
    for number, digest in enumerate(acknowledged):
        assert await store.get_job(f"r{number}") == job(f"r{number}")
        assert len(await store.events(f"r{number}")) == 1
        assert await store.get_model("m", str(number)) == model("m", str(number), digest=digest)
        assert await store.check_blob(digest)
    _, charges = await store.read_ledger("d", "example")
    assert [charge["n"] for charge in charges][:known] == list(range(known))
    assert int.from_bytes((await checkpoint(store, "r"))[:4], "big") >= known - 1
    await store.sweep()
    with server.client() as client:
        assert [file["length"] for file in client.test["checkpoints.files"].find()] == [300_000]
        assert client.test["checkpoints.chunks"].count_documents({}) == 1


@kinds(quick="standalone")
async def test_a_checkpoint_that_sigkill_cut_leaves_the_older_and_nothing_else(
    own_mongod, make_store, answers, replica_set, tmp_path
):
    server = own_mongod(replica_set=replica_set)
    store = await make_store(server.url, selection_timeout=2)
    await store.put_checkpoint("r1", chunks(b"older"), limit=9)

    async def cut():
        yield b"x" * (8 << 20)
        await asyncio.to_thread(server.kill)

    with pytest.raises(StoreUnavailable):
        await store.put_checkpoint("r1", cut(), limit=9 << 20)
    assert [path for path in (tmp_path / "state" / "checkpoints").rglob("*") if path.is_file()] == []
    await asyncio.to_thread(server.start)
    await answers(store)
    assert await checkpoint(store, "r1") == b"older"
    await store.sweep()
    with server.client() as client:
        assert client.test["checkpoints.files"].count_documents({}) == 1
        assert client.test["checkpoints.chunks"].count_documents({}) == 1


async def test_the_same_run_id_on_two_nodes_has_two_checkpoints(standalone, emptied, make_store):
    emptied(standalone)
    one = await make_store(standalone.url, folder="one", node="one")
    two = await make_store(standalone.url, folder="two", node="two")
    await one.put_checkpoint("r1", chunks(b"one"), limit=9)
    assert await two.checkpoint_path("r1") is None
    await two.put_checkpoint("r1", chunks(b"two"), limit=9)
    assert await one.sweep() == 0
    await two.delete_checkpoint("r1")
    assert await checkpoint(one, "r1") == b"one"


@kinds(quick="standalone")
async def test_an_upload_that_sigkill_cut_leaves_nothing_after_the_sweep(
    own_mongod, make_store, answers, replica_set, monkeypatch
):
    monkeypatch.setattr("locex_mongo_store.blobs.BATCH", 1 << 20)  # many writes, so that the kill meets one
    server = own_mongod(replica_set=replica_set)
    store = await make_store(server.url, selection_timeout=2)
    kept = await store.write_blob(chunks(b"kept"), limit=9)
    await store.put_model(model("m", digest=kept.digest))
    data = os.urandom(1 << 20)

    async def large():
        for _ in range(96):
            yield data

    with server.client() as client:
        stored = client.test.blobs.chunks
        writing = asyncio.create_task(store.write_blob(large(), limit=1 << 30))
        while await asyncio.to_thread(stored.estimated_document_count) < 10:  # noqa: ASYNC110 -- another process's state
            await asyncio.sleep(0.01)
    server.kill()
    with pytest.raises(StoreUnavailable):
        await writing
    await asyncio.to_thread(server.start)
    await answers(store)
    with server.client() as client:
        assert client.test.blobs.files.count_documents({}) == 1
        assert client.test.blobs.chunks.count_documents({}) > 1
        assert await store.sweep() == 1
        assert client.test.blobs.chunks.count_documents({}) == 1
    assert await store.check_blob(kept.digest)
    assert await store.sweep() == 0
    blob = await store.write_blob(large(), limit=1 << 30)
    assert await store.check_blob(blob.digest)


async def test_a_record_that_no_document_can_hold_is_refused(replica_set, emptied, make_store):
    store = await make_store(emptied(replica_set).url)
    await store.put_job(job("r1"))
    with pytest.raises(TooLarge, match="16 MB"):
        await store.save_job(job("r1", configuration={"text": os.urandom(17 << 20).hex()}), "log", {})
    assert await store.get_job("r1") == job("r1")
    assert await store.events("r1") == []


@pytest.mark.parametrize(("kind", "stored"), [("replica_set", 0), ("standalone", 7)])
async def test_a_record_whose_event_fails_is_kept_only_where_there_are_no_transactions(
    request, emptied, make_store, kind, stored
):
    store = await make_store(emptied(request.getfixturevalue(kind)).url)
    await store.put_job(job("r1"))
    with pytest.raises(TooLarge, match="16 MB"):
        await store.save_job(job("r1", round=7), "log", {"text": "x" * (17 << 20)})
    assert (await store.get_job("r1")).round == stored
    assert await store.events("r1") == []


async def test_a_damaged_blob_is_noticed(standalone, emptied, make_store):
    store = await make_store(emptied(standalone).url)
    blob = await store.write_blob(chunks(b"right"), limit=9)
    with standalone.client() as client:
        client.test.blobs.chunks.update_one({}, {"$set": {"data": b"wrong"}})
    assert not await store.check_blob(blob.digest)
    elsewhere = await make_store(standalone.url, folder="elsewhere")
    with pytest.raises(StoreUnavailable, match=r"damaged"):
        await elsewhere.blob_path(blob.digest)
    with standalone.client() as client:
        client.test.blobs.chunks.delete_many({})
    with pytest.raises(StoreUnavailable, match="CorruptGridFile"):
        await elsewhere.blob_path(blob.digest)


@kinds(quick="standalone")
async def test_changes_of_a_run_wait_for_the_store_and_come_in_order(own_mongod, make_store, replica_set, monkeypatch):
    monkeypatch.setattr("locex.jobs.registry._RETRY", 0.05)
    server = own_mongod(replica_set=replica_set)
    store = await make_store(server.url, selection_timeout=2)
    registry = Registry(store)
    await registry.create(job("r1"))
    server.kill()

    async def train():
        assert await registry.claim("r1")
        for state in (JobState.PREPARING, JobState.WAITING, JobState.TRAINING):
            await registry.enter("r1", state)
        for number in range(5):
            await registry.change("r1", "round", {"round": number}, round=number)

    training = asyncio.create_task(train())
    with pytest.raises(StoreUnavailable):
        await registry.create(job("r2", "u"))
    await asyncio.sleep(1)
    assert not training.done()
    await asyncio.to_thread(server.start)
    await training

    events = await store.events("r1")
    assert [event.id for event in events] == list(range(1, 11))
    assert [event.content["state"] for event in events[:5]] == [
        "QUEUED",
        "CONFIGURING",
        "PREPARING",
        "WAITING",
        "TRAINING",
    ]
    assert [event.content["round"] for event in events[5:]] == list(range(5))
    assert (await store.get_job("r1")).round == 4
    await registry.close()


@kinds(quick="standalone")
async def test_a_write_whose_answer_was_lost_is_done_once(own_mongod, make_store, replica_set, lossy):
    server = own_mongod(replica_set=replica_set)
    async with lossy(server) as (url, proxy):
        store = await make_store(f"{url}&retryWrites=false")
        await store.put_job(job("r1"))
        claim = job("r1", state=JobState.CONFIGURING)
        for write, answer in (
            (lambda: store.save_job(job("r1"), "state", {"n": 1}), None),
            (lambda: store.append_event("r1", "log", {"n": 2}), None),
            (lambda: store.claim_job("r1", JobState.QUEUED, claim), True),
            (lambda: store.put_model(model("m"), replace=False), True),
        ):
            proxy.losing = True
            try:
                answered = await write()
            except StoreUnavailable:  # the driver asks for a commit again by itself
                answered = await write()
            assert not proxy.losing
            assert answer in (None, answered)
        proxy.losing = True
        with pytest.raises(StoreUnavailable):
            await store.append_ledger("d", "example", 0, {})
        assert not await store.append_ledger("d", "example", 0, {}), "equal charges must not pass for one"
        assert [event.content["n"] for event in await store.events("r1")] == [1, 2]
        assert await store.get_job("r1") == claim
        await store.close()
