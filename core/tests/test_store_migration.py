"""``locex store migrate``: everything arrives, once, verified; nothing newer is overwritten."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from locex.schemas.record import JobState
from locex.store.lock import FolderLock
from locex.store.migration import Migration
from locex.store.sqlite_store import SqliteStore
from locex.testing.store_contract import checkpoint, chunks, job, model

FIRST = Path(__file__).parent / "store_version_1"


@pytest.fixture
async def source(open_store, tmp_path):
    shutil.copytree(FIRST, tmp_path / "source")
    return await open_store("source")


@pytest.fixture
async def target(open_store):
    return await open_store("target")


async def move(source, target, **datasets):
    return await Migration(source, target, datasets=datasets, tell=lambda _: None).run()


async def content(store):
    jobs = (await store.list_jobs(limit=1000)).records
    models = await store.list_models()
    return {
        "jobs": [record.model_dump_json() for record in jobs],
        "events": [await store.events(record.run_id) for record in jobs],
        "models": models,
        "blobs": [(await store.blob_path(known.digest)).read_bytes() for known in models],
        "ledgers": {name: await store.read_ledger(*name) for name in await store.list_ledgers()},
    }


async def test_everything_arrives_and_a_second_run_changes_nothing(source, target):
    for name in ("b", "c", "a"):  # of those created at once the order is that of their putting
        await source.put_job(job(name, created=5.0))
    for _ in range(2):
        report = await move(source, target)
        assert (report.models, report.jobs, report.events, report.ledgers) == (2, 5, 4, 1)
        assert (len(report.blobs), report.faults) == (2, [])
        assert await content(target) == await content(source)
        assert await target.sweep() == 0


async def test_checkpoints_of_jobs_that_go_on_arrive(source, target):
    await source.put_job(job("r1", state=JobState.INTERRUPTED))
    await source.put_checkpoint("r1", chunks(b"momentum"), limit=9)
    for _ in range(2):
        assert (await move(source, target)).faults == []
        assert await checkpoint(target, "r1") == await checkpoint(source, "r1") == b"momentum"
        assert await target.sweep() == 0
    await target.put_job(job("r1", state=JobState.INTERRUPTED, updated=2.0))
    await target.put_checkpoint("r1", chunks(b"newer"), limit=9)
    assert len((await move(source, target)).faults) == 1
    assert await checkpoint(target, "r1") == b"newer"


async def test_a_checkpoint_that_is_not_read_back_is_told(source, target, monkeypatch):
    async def lose(run_id, chunks, *, limit):
        await SqliteStore.put_checkpoint(target, run_id, chunks, limit=limit)
        (await target.checkpoint_path(run_id)).write_bytes(b"damaged!")

    monkeypatch.setattr(target, "put_checkpoint", lose)
    await source.put_job(job("r1"))
    await source.put_checkpoint("r1", chunks(b"momentum"), limit=9)
    assert (await move(source, target)).faults == ["run r1: the target does not read back its checkpoint"]
    assert await target.get_job("r1") is None


async def test_a_run_that_was_cut_is_taken_up(source, target, monkeypatch):
    async def cut(record):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(target, "put_job", cut)
        with pytest.raises(KeyboardInterrupt):
            await move(source, target)
    report = await move(source, target)
    assert report.faults == []
    assert await content(target) == await content(source)


async def test_what_the_target_has_otherwise_stays_and_is_told(source, target):
    (_, done) = (await source.list_jobs()).records
    newer = done.model_copy(update={"updated": done.updated + 1, "warnings": ["newer"]})
    await target.put_job(newer)
    other = model("digits", digest=(await target.write_blob(chunks(b"other"), limit=9)).digest)
    await target.put_model(other)
    await target.append_ledger("default", "example", 0, {"sigma": 9.9})
    report = await move(source, target)
    assert len(report.faults) == 3
    for part in (done.run_id, "model digits 1", "ledger default"):
        assert any(part in fault for fault in report.faults)
    assert (await target.get_job(done.run_id)).warnings == ["newer"]
    assert await target.get_model("digits", "1") == other
    assert (await target.read_ledger("default", "example"))[0] == 1

    report = await move(source, target, default="hospital-a")
    assert len(report.faults) == 2
    assert await target.read_ledger("hospital-a", "example") == await source.read_ledger("default", "example")


async def test_a_ledger_that_went_on_in_the_target_is_no_fault(source, target):
    await move(source, target)
    await target.append_ledger("default", "example", 2, {"sigma": 1.1, "steps": 30})
    assert (await move(source, target)).faults == []
    assert (await target.read_ledger("default", "example"))[0] == 3


@pytest.mark.parametrize(("damage", "told"), [("changed", "damaged in the source"), ("gone", "lacks its bytes")])
async def test_bytes_that_the_source_lost_are_told_and_the_rest_moves(source, target, damage, told):
    path = await source.blob_path((await source.get_model("digits", "1")).digest)
    path.unlink() if damage == "gone" else path.write_bytes(b"x" * 29)
    report = await move(source, target)
    assert [fault for fault in report.faults if told in fault] == report.faults != []
    assert (report.models, report.jobs, report.ledgers) == (1, 2, 1)
    assert await target.get_model("digits", "1") is None


@pytest.fixture
def migrate(tmp_path):
    async def run(*arguments):
        argv = [sys.executable, "-m", "locex.cli", "store", "migrate", *map(str, arguments)]
        environment = os.environ | {"LOCEX_STATE_FOLDER": str(tmp_path / "state")}
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, env=environment)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


async def test_the_command_moves_and_verifies(migrate, tmp_path, open_store):
    shutil.copytree(FIRST, tmp_path / "state")
    code, stdout, stderr = await migrate("sqlite:", f"sqlite:{tmp_path}/target", "--rename-dataset", "default=site")
    assert (code, stderr) == (0, "")
    assert "2 models, 2 jobs, 4 events, 1 ledgers, 2 blobs are in the target and verified" in stdout
    assert await (await open_store("target")).list_ledgers() == [("site", "example")]


async def test_the_command_refuses_while_a_service_owns_the_source_or_the_target(migrate, tmp_path):
    shutil.copytree(FIRST, tmp_path / "state")
    for owned in ("state", "elsewhere"):
        with FolderLock(tmp_path / owned):
            for arguments in (("sqlite:", f"sqlite:{tmp_path}/elsewhere"), (f"sqlite:{tmp_path}/elsewhere", "sqlite:")):
                code, _, stderr = await migrate(*arguments)
                assert code == 1
                assert f"in use by the process {os.getpid()}" in stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere", "sqlite:"), "named by its URL"),
        (("sqlite:", "cloud://x"), "no store named 'cloud'"),
        (("sqlite:", "mongodb://locex:hunter2@db/"), "file:PATH"),
        (("file:/absent", "sqlite:"), "/absent cannot be read"),
        (("sqlite:", "sqlite:/tmp/x", "--rename-dataset", "a"), "not OLD=NEW"),
    ],
)
async def test_what_the_command_does_not_take(migrate, arguments, told):
    code, _, stderr = await migrate(*arguments)
    assert code != 0
    assert told in stderr
    assert "hunter2" not in stderr


async def test_an_empty_source_is_told(migrate, tmp_path):
    code, _, stderr = await migrate("sqlite:", f"sqlite:{tmp_path}/target")
    assert code == 1
    assert "the source is empty" in stderr
