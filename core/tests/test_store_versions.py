"""A folder that the first version wrote (store_version_1, made by locex-core 1.0.0) is read by this one."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from locex.schemas.record import FailureKind, JobState

FIRST = Path(__file__).parent / "store_version_1"


@pytest.fixture
async def store(open_store, tmp_path):
    shutil.copytree(FIRST, tmp_path / "state")
    return await open_store()


async def test_everything_of_the_first_version_is_read(store):
    failed, done = (await store.list_jobs(training_id="t")).records
    assert (done.state, done.round, done.plugins) == (JobState.FINISHED, 2, {"locex-torch-builder": "1.0.0"})
    assert math.isnan(done.history[0].train["loss"])
    assert done.history[1].epsilon == {"example": 1.5}
    assert (failed.failure.kind, failed.failure.exit_code) == (FailureKind.CRASHED, -9)
    events = await store.events(done.run_id)
    assert [(event.id, event.content["state"]) for event in events] == [(1, "QUEUED"), (2, "FINISHED")]
    base, trained = await store.list_models()
    assert (base.meta.library, base.meta.description, trained.lineage["round"]) == ("pytorch", "kept", 2)
    assert (await store.blob_path(base.digest)).read_bytes() == b'{"features": 4, "classes": 3}'
    assert await store.read_ledger("default", "example") == (2, [{"sigma": 1.1, "steps": n} for n in (10, 20)])
    assert await store.sweep() == 0


async def test_what_the_first_version_wrote_is_changed_and_continued(store):
    failed, done = (await store.list_jobs()).records
    assert (await store.save_job(done, "log", {})).id == 3
    assert await store.claim_job(failed.run_id, JobState.FAILED, failed.model_copy(update={"state": JobState.QUEUED}))
    assert await store.append_ledger("default", "example", 2, {})
    base = await store.get_model("digits", "1")
    assert await store.put_model(base.model_copy(update={"size": 1}))
    assert (await store.get_model("digits", "1")).size == 1
