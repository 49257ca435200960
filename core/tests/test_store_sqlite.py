from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from locex.errors import StoreUnavailable
from locex.store.protocol import StoreContext
from locex.testing.store_contract import LargeBlobs, StoreContract, checkpoint, chunks, job, model

WRITER = Path(__file__).parent / "store_writer.py"


def make_store(folder, **options):
    plugin = entry_points(group="locex.store")["sqlite"].load()()
    return plugin.locex_create_store(plugin.locex_config_model()(**options), StoreContext(folder=folder))


@pytest.fixture
async def store(tmp_path):
    store = make_store(tmp_path / "state", sweep_grace=0)
    await store.open()
    yield store
    await store.close()


class TestSqliteStore(StoreContract):
    @pytest.fixture
    async def reopen(self, tmp_path):
        reopened = []

        async def reopen(store):
            await store.close()
            again = make_store(tmp_path / "state", sweep_grace=0)
            await again.open()
            reopened.append(again)
            return again

        yield reopen
        for store in reopened:
            await store.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestLargeSqliteBlobs(LargeBlobs):
    pass


async def test_only_the_user_can_read_the_files(store, tmp_path):
    await store.put_job(job("r1"))
    await store.write_blob(chunks(b"weights"), limit=9)
    for path in [tmp_path / "state", *(tmp_path / "state").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


async def test_a_sweep_keeps_what_is_young(tmp_path):
    store = make_store(tmp_path, sweep_grace=3600)
    await store.open()
    young = await store.write_blob(chunks(b"young"), limit=9)
    again = await store.write_blob(chunks(b"again"), limit=9)
    aged = await store.write_blob(chunks(b"aged"), limit=9)
    for blob in (again, aged):
        os.utime(await store.blob_path(blob.digest), (1, 1))
    await store.write_blob(chunks(b"again"), limit=9)

    assert await store.sweep() == 1
    assert await store.blob_path(young.digest)
    assert await store.blob_path(again.digest)
    assert await store.blob_path(aged.digest) is None
    await store.close()


async def test_a_sweep_takes_temporary_files_of_a_dead_process(store, tmp_path):
    (tmp_path / "state" / "blobs" / "tmp" / "left").write_bytes(b"half")
    assert await store.sweep() == 1


async def test_a_full_disk_is_an_error_and_the_store_goes_on(store, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StoreUnavailable) as caught:
            await store.write_blob(chunks(b"x" * (3 << 20)), limit=9 << 20)
        with pytest.raises(StoreUnavailable):
            await store.put_job(job("big", configuration={"text": "x" * (3 << 20)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free space" in caught.value.remedy
    assert list((tmp_path / "state" / "blobs" / "tmp").iterdir()) == []
    assert await store.get_job("big") is None
    await store.put_job(job("r1"))
    assert await store.get_job("r1") == job("r1")
    assert (await store.write_blob(chunks(b"x" * (3 << 20)), limit=9 << 20)).size == 3 << 20


async def test_a_database_of_a_newer_locex_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "store.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnavailable, match="layout 99"):
        await make_store(tmp_path).open()


async def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "store.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await make_store(tmp_path).open()


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot be made"):
        await make_store(tmp_path / "file" / "state").open()


async def test_a_closed_store_is_unavailable(store):
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.put_job(job("r1"))


async def test_what_was_acknowledged_survives_sigkill(tmp_path):
    process = await asyncio.create_subprocess_exec(sys.executable, WRITER, tmp_path, stdout=asyncio.subprocess.PIPE)
    acknowledged = [await process.stdout.readline() for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [line async for line in process.stdout]
    await process.wait()

    numbers = [int(line.split()[0]) for line in acknowledged if line.endswith(b"\n")]
    digests = [line.split()[1].decode() for line in acknowledged if line.endswith(b"\n")]
    store = make_store(tmp_path)
    await store.open()
    assert [event.content["n"] for event in await store.events("r", limit=9999)][: len(numbers)] == numbers
    for number, digest in zip(numbers, digests, strict=True):
        assert await store.get_job(f"r{number}")
        assert await store.get_model("m", str(number)) == model("m", str(number), digest=digest)
        assert (await store.blob_path(digest)).stat().st_size == 300_000
    version, events = await store.read_ledger("d", "example")
    assert version >= len(numbers)
    assert [event["n"] for event in events][: len(numbers)] == numbers
    assert int.from_bytes((await checkpoint(store, "r"))[:4], "big") >= numbers[-1]
    await store.close()
    store = make_store(tmp_path, sweep_grace=0)
    await store.open()
    await store.sweep()
    assert [path.stat().st_size for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()] == [300_000]
    await store.close()
