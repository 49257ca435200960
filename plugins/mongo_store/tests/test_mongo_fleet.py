"""Several nodes in one database: whose jobs are whose, what they share, and that a name has one service."""

from __future__ import annotations

import asyncio
import os

import pytest

from locex.errors import InvalidConfiguration, StoreUnavailable
from locex.schemas.record import JobState
from locex.testing.store_contract import chunks, job, model

COMPETITORS = 20


@pytest.fixture(params=["replica_set", "standalone"])
def server(request, emptied):
    return emptied(request.getfixturevalue(request.param))


async def test_a_node_sees_its_own_jobs_and_everybodys_models(server, make_store):
    one, two = await make_store(server.url, folder="one"), await make_store(server.url, folder="two")
    await one.save_job(job("r1"), "state", {})
    await two.save_job(job("r2"), "state", {})
    for mine, own, foreign in ((one, "r1", "r2"), (two, "r2", "r1")):
        assert [record.run_id for record in (await mine.list_jobs()).records] == [own]
        assert (await mine.latest_job("t")).run_id == own
        assert await mine.get_job(foreign) is None
        assert not await mine.claim_job(foreign, JobState.QUEUED, job(foreign, state=JobState.STOPPED))
    await one.put_model(model("m", digest=(await one.write_blob(chunks(b"weights"), limit=9)).digest))
    shared = await two.get_model("m", "1")
    assert (await two.blob_path(shared.digest)).read_bytes() == b"weights"
    assert await two.sweep() == 0


@pytest.mark.parametrize("put", ["put_job", "save_job"])
async def test_a_run_of_another_node_is_not_replaced(server, make_store, put):
    one, two = await make_store(server.url, folder="one", node="first"), await make_store(server.url, folder="two")
    await one.put_job(job("r1"))
    arguments = ("state", {}) if put == "save_job" else ()
    with pytest.raises(InvalidConfiguration, match="r1 is one of the node first"):
        await getattr(two, put)(job("r1", round=7), *arguments)
    assert await one.get_job("r1") == job("r1")


async def test_nodes_that_charge_at_once_share_one_ledger(server, make_store):
    stores = [await make_store(server.url, folder=f"node-{number}") for number in range(4)]

    async def charge(number):
        store = stores[number % len(stores)]
        while True:
            version, _ = await store.read_ledger("d", "example")
            if await store.append_ledger("d", "example", version, {"n": number}):
                return

    await asyncio.gather(*map(charge, range(COMPETITORS)))
    version, events = await stores[0].read_ledger("d", "example")
    assert version == COMPETITORS
    assert sorted(event["n"] for event in events) == list(range(COMPETITORS))


async def test_two_writers_of_the_same_bytes_make_one_blob(server, make_store):
    stores = [await make_store(server.url, folder=f"node-{number}") for number in range(4)]
    data = os.urandom(3 << 20)
    blobs = await asyncio.gather(*(store.write_blob(chunks(data), limit=len(data)) for store in stores))
    assert len(set(blobs)) == 1
    with server.client() as client:
        assert client.test.blobs.files.count_documents({}) == 1
        assert client.test.blobs.chunks.count_documents({}) == 3
    assert await stores[0].check_blob(blobs[0].digest)


async def test_another_nodes_young_blob_is_spared_by_a_sweep(server, make_store):
    one = await make_store(server.url, folder="one")
    two = await make_store(server.url, folder="two", sweep_grace=3600)
    blob = await one.write_blob(chunks(b"not yet referenced"), limit=99)
    assert await two.sweep() == 0
    with server.client() as client:
        client.test.blobs.chunks.insert_one({"files_id": "being uploaded", "n": 0, "data": b""})
    assert await two.sweep() == 0
    assert await two.check_blob(blob.digest)
    assert await one.sweep() == 2


async def test_a_nodes_name_has_one_service(server, make_store):
    one = await make_store(server.url, folder="one", node="hospital")
    with pytest.raises(StoreUnavailable) as caught:
        await make_store(server.url, folder="two", node="hospital")
    assert "hospital" in caught.value.message
    assert f"process {os.getpid()} on " in caught.value.message
    assert "LOCEX_NODE" in caught.value.remedy
    await one.put_job(job("r1"))
    await one.close()
    two = await make_store(server.url, folder="two", node="hospital")
    assert await two.get_job("r1") == job("r1")


async def test_the_service_that_comes_after_a_killed_one_takes_the_name_at_once(server, make_store):
    await make_store(server.url, folder="one")  # left open, as by SIGKILL; its folder's lock is another matter
    again = await make_store(server.url, folder="one")
    await again.put_job(job("r1"))


async def test_a_name_that_was_silent_is_free_and_the_former_service_is_fenced(server, make_store, eventually):
    one = await make_store(server.url, folder="one", node="hospital", lease=1.2)
    one._lease._renewing.cancel()
    with pytest.raises(StoreUnavailable):
        await make_store(server.url, folder="two", node="hospital")
    await asyncio.sleep(1.3)
    two = await make_store(server.url, folder="two", node="hospital", lease=1.2)
    one._lease._renewing = asyncio.create_task(one._lease._renew())
    await eventually(lambda: one._deployment.fenced)
    with pytest.raises(StoreUnavailable, match="took over the node hospital"):
        await one.put_job(job("r1"))
    await two.put_job(job("r1"))


async def test_a_living_service_renews_its_lease(server, make_store, eventually):
    with server.client() as client:

        def seen():
            return client.test.nodes.find_one({"_id": "hospital"})["seen"]

        await make_store(server.url, node="hospital", lease=1.2)
        first = seen()
        await eventually(lambda: seen() > first)
