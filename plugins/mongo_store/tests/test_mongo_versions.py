"""A dump of the first layout, its records as locex-core 1.0.0 wrote them (mongo_version_1.jsonl), is read here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from bson import json_util

from locex.errors import StoreUnavailable
from locex.schemas.record import FailureKind, JobState

DUMP = Path(__file__).parent / "mongo_version_1.jsonl"


@pytest.fixture
async def store(standalone, emptied, make_store):
    emptied(standalone)
    with standalone.client() as client:
        for line in DUMP.read_text(encoding="utf-8").splitlines():
            row = json_util.loads(line)
            client.test[row["collection"]].insert_one(row["document"])
    return await make_store(standalone.url, node="node-1")


async def test_everything_of_the_first_version_is_read(store):
    failed, done = (await store.list_jobs(training_id="t")).records
    assert (done.state, done.round, done.plugins) == (JobState.FINISHED, 2, {"locex-torch-builder": "1.0.0"})
    assert math.isnan(done.history[0].train["loss"])
    assert (failed.failure.kind, failed.failure.exit_code) == (FailureKind.CRASHED, -9)
    events = await store.events(done.run_id)
    assert [(event.id, event.content["state"]) for event in events] == [(1, "QUEUED"), (2, "FINISHED")]
    base, trained = await store.list_models()
    assert (base.meta.description, trained.lineage["round"]) == ("kept", 2)
    assert (await store.blob_path(base.digest)).read_bytes() == b'{"features": 4, "classes": 3}'
    assert await store.read_ledger("default", "example") == (2, [{"sigma": 1.1, "steps": n} for n in (10, 20)])
    assert await store.sweep() == 0


async def test_a_record_of_a_newer_locex_is_refused(store, standalone):
    with standalone.client() as client:
        row = client.test.jobs.find_one({"_id": "20260102-000000-bbbbbb"})
        record = json.dumps(json.loads(row["record"]) | {"version": 99})
        client.test.jobs.update_one({"_id": row["_id"]}, {"$set": {"record": record}})
    with pytest.raises(StoreUnavailable, match="version 99"):
        await store.list_jobs()


async def test_a_database_of_a_newer_locex_is_refused(store, standalone, make_store, emptied):
    with standalone.client() as client:
        client.test.meta.update_one({"_id": "layout"}, {"$set": {"version": 99}})
    with pytest.raises(StoreUnavailable, match="layout 99") as caught:
        await make_store(standalone.url, folder="other")
    assert "upgrade locex-mongo-store" in caught.value.remedy
