"""Checkpoints in the store: which are copied, and that a node which lost its folder goes on from the copy."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import signal
import zipfile

import pytest
from safetensors.numpy import load, load_file

from locex.errors import StoreUnavailable
from locex.jobs.checkpoints import Checkpoints
from locex.schemas.record import JobState

ANEW = "no checkpoint was found: optimizer and scheduler begin anew"
EPOCHS = 2


async def rounds_told(node, number):
    """Wait until the newest run told of so many fits and evaluations."""
    record = await node.jobs.latest("t")
    async for event in node.jobs.follow(record.run_id):
        number -= event.kind == "round"
        if not number:
            return record
    raise AssertionError("the run ended before")


async def gone(store, run_id):
    while await store.checkpoint_path(run_id) is not None:  # noqa: ASYNC110 -- it happens in the background
        await asyncio.sleep(0.01)


async def steps_of_the_model(node, record):
    path = await node.store.blob_path(record.model["digest"])
    return int(load_file(path)["steps"])


@pytest.fixture
def slow_rounds(monkeypatch):
    monkeypatch.setenv("FIXTURE_ROUND_SECONDS", "0.5")


async def test_a_node_that_lost_its_folder_goes_on_where_it_was(open_node, settings, slow_rounds):
    async with open_node(checkpoints="store") as node:
        await node.submit()
        run_id = (await rounds_told(node, 2)).run_id
        os.kill((await node.jobs.latest("t")).worker["pid"], signal.SIGSTOP)  # not another round
    shutil.rmtree(settings.state_folder / "runs")
    async with open_node(checkpoints="store", resume=False) as node:
        with zipfile.ZipFile(await node.store.checkpoint_path(run_id)) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("tiny.safetensors")]
            done = int(name.partition("-")[0])
            assert int(load(archive.read(name))["steps"]) == EPOCHS * done >= EPOCHS
    async with open_node(checkpoints="store") as node:
        record = await node.end()
        assert record.state is JobState.FINISHED, record.failure
        assert (record.resumes, record.warnings) == (1, [])
        assert [one.round for one in record.history] == [1, 2, 3]
        # The fixture's federation begins at round 1 again, with the weights that the node remembers.
        assert await steps_of_the_model(node, record) == EPOCHS * (done + 3)
        await gone(node.store, run_id)
    assert [path for path in (settings.state_folder / "checkpoints").rglob("*") if path.is_file()] == []


async def test_unless_the_site_wants_it_nothing_leaves_the_folder(open_node, settings, slow_rounds):
    async with open_node() as node:
        await node.submit()
        record = await rounds_told(node, 2)
    async with open_node(resume=False) as node:
        assert await node.store.checkpoint_path(record.run_id) is None
    shutil.rmtree(settings.state_folder / "runs")
    async with open_node() as node:
        assert (await node.end()).warnings == [ANEW]


async def test_an_older_checkpoint_is_told(open_node, settings, slow_rounds):
    async with open_node(checkpoints="store") as node:
        await node.submit()
        await rounds_told(node, 2)
        os.kill((await node.jobs.latest("t")).worker["pid"], signal.SIGSTOP)
    shutil.rmtree(settings.state_folder / "runs")
    async with open_node(resume=False) as node:
        record = await node.jobs.latest("t")
        await node.store.put_job(record.model_copy(update={"round": 9}))
    async with open_node(checkpoints="store") as node:
        (warning,) = (await node.end()).warnings
    assert re.fullmatch(r"the stored checkpoint is that of round \d, and 9 were done", warning)


async def test_the_end_of_the_service_in_the_midst_of_a_record_keeps_the_checkpoint(open_node):
    async with open_node(checkpoints="store") as node:
        save_job, reached = node.store.save_job, asyncio.Event()

        async def stuck(record, kind, content):
            if kind == "round":
                reached.set()
                await asyncio.Event().wait()
            return await save_job(record, kind, content)

        node.store.save_job = stuck
        await node.submit()
        await reached.wait()
        run_id = (await node.jobs.latest("t")).run_id
    async with open_node(resume=False) as node:
        assert await node.store.checkpoint_path(run_id) is not None


@pytest.mark.parametrize("content", [b"no archive", None])
async def test_a_checkpoint_that_cannot_be_used_counts_as_nothing(open_node, settings, slow_rounds, content):
    async def chunks():
        yield content or await asyncio.to_thread(foreign)

    async with open_node() as node:
        await node.submit()
        record = await rounds_told(node, 2)
        await node.store.put_checkpoint(record.run_id, chunks(), limit=1000)
    shutil.rmtree(settings.state_folder / "runs")
    async with open_node(checkpoints="store") as node:
        record = await node.end()
        assert (record.state, record.warnings) == (JobState.FINISHED, [ANEW])


def foreign():
    """An archive whose generation has none of a checkpoint's files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("1-a/word", b"x")
    return packed.getvalue()


async def test_a_stopped_job_leaves_no_checkpoint(open_node, slow_rounds):
    async with open_node(checkpoints="store") as node:
        await node.submit()
        record = await rounds_told(node, 2)
    async with open_node(checkpoints="store", resume=False) as node:
        assert await node.store.checkpoint_path(record.run_id) is not None
        await node.jobs.stop("t")
        await gone(node.store, record.run_id)


# --- what is copied while the store is slow or down


class Gated:
    """A store in whose midst each call waits until a test lets it go on, and which may be down."""

    def __init__(self, store):
        self._store = store
        self.calls, self.gate, self.down = [], asyncio.Event(), False

    async def put_checkpoint(self, run_id, chunks, *, limit):
        await self._pass(f"put {run_id}")
        await self._store.put_checkpoint(run_id, chunks, limit=limit)

    async def delete_checkpoint(self, run_id):
        await self._pass(f"delete {run_id}")
        await self._store.delete_checkpoint(run_id)

    async def _pass(self, call):
        self.calls.append(call)
        await self.gate.wait()
        if self.down:
            raise StoreUnavailable("down")


@pytest.fixture
async def store(open_store):
    return await open_store()


@pytest.fixture
def gated(store, monkeypatch):
    monkeypatch.setattr("locex.jobs.checkpoints._RETRY", 0.01)
    return Gated(store)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoint"


def save(folder, server_round):
    place = folder / f"{server_round}-a"
    place.mkdir(parents=True)
    (place / "progress.json").write_text(str(server_round))
    (folder / "current").write_text(place.name)


async def names_of(store, run_id):
    path = await store.checkpoint_path(run_id)
    if path is None:
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


async def test_the_newest_is_copied_and_those_between_are_skipped(gated, store, folder, eventually):
    checkpoints = Checkpoints(gated, wanted=True)
    for server_round in range(1, 6):
        save(folder, server_round)
        checkpoints.keep("r1", folder)
        await eventually(lambda: gated.calls)
    checkpoints.keep("r2", folder)
    gated.gate.set()
    await checkpoints.close()
    assert gated.calls == ["put r1", "put r1", "put r2"]
    assert await names_of(store, "r1") == ["5-a/progress.json"]


async def test_while_the_store_is_down_the_newest_waits(gated, store, folder, eventually):
    gated.down = True
    gated.gate.set()
    checkpoints = Checkpoints(gated, wanted=True)
    save(folder, 1)
    checkpoints.keep("r1", folder)
    await eventually(lambda: len(gated.calls) > 2)
    save(folder, 2)
    gated.down = False
    await checkpoints.close()
    assert await names_of(store, "r1") == ["2-a/progress.json"]


async def test_a_run_that_ends_meanwhile_has_no_copy(gated, store, folder, eventually):
    checkpoints = Checkpoints(gated, wanted=True)
    save(folder, 1)
    checkpoints.keep("r1", folder)
    await eventually(lambda: gated.calls)
    checkpoints.keep("r1", folder)
    checkpoints.drop("r1")
    gated.gate.set()
    await checkpoints.close()
    assert gated.calls == ["put r1", "delete r1"]
    assert await store.checkpoint_path("r1") is None


async def test_what_cannot_be_packed_keeps_nothing_else_from_the_store(gated, store, folder, caplog):
    gated.gate.set()
    checkpoints = Checkpoints(gated, wanted=True)
    save(folder, 1)
    checkpoints.keep("r1", folder / "absent")
    checkpoints.keep("r2", folder)
    await checkpoints.close()
    assert "the checkpoint of run r1 was not stored" in caplog.text
    assert await names_of(store, "r2") == ["1-a/progress.json"]


async def test_the_end_of_the_service_does_not_wait_for_a_lost_store(gated, folder, monkeypatch):
    monkeypatch.setattr("locex.jobs.checkpoints._LAST_WRITE", 0.05)
    checkpoints = Checkpoints(gated, wanted=True)
    save(folder, 1)
    checkpoints.keep("r1", folder)
    async with asyncio.timeout(10):
        await checkpoints.close()
    assert gated.calls == ["put r1"]
