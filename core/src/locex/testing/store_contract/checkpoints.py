"""Checkpoints of runs."""
# A test's name says what it shows.
# ruff: noqa: D102

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from locex.errors import TooLarge
from locex.schemas.record import JobState
from locex.store.protocol import Store
from locex.testing.store_contract.examples import COMPETITORS, checkpoint, chunks, job, model


class CheckpointContract:
    """Of a run there is one, whole, until the run is over."""

    async def test_a_checkpoint_takes_the_place_of_the_older_whose_bytes_go(self, store: Store) -> None:
        assert await store.checkpoint_path("r1") is None
        for data in (b"first" * 500_000, b"second", b"second"):
            await store.put_checkpoint("r1", chunks(data[:7], data[7:]), limit=3_000_000)
            assert await checkpoint(store, "r1") == data
            assert await store.sweep() == 0, "the older bytes are gone already"

    async def test_the_older_checkpoint_stays_until_the_newer_is_whole(self, store: Store) -> None:
        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            assert await checkpoint(store, "r1") == b"older"
            yield b"y"

        async def broken() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            raise ConnectionResetError

        await store.put_checkpoint("r1", chunks(b"older"), limit=9)
        with pytest.raises(TooLarge):
            await store.put_checkpoint("r1", chunks(b"12345", b"67890"), limit=9)
        with pytest.raises(ConnectionResetError):
            await store.put_checkpoint("r1", broken(), limit=10_000_000)
        assert await checkpoint(store, "r1") == b"older"
        assert await store.sweep() == 0
        await store.put_checkpoint("r1", slow(), limit=10_000_000)
        assert await checkpoint(store, "r1") == b"x" * 2_000_000 + b"y"

    async def test_of_many_checkpoints_at_once_one_stays(self, store: Store) -> None:
        contents = [bytes([number // 2]) * 1000 for number in range(COMPETITORS)]  # each twice
        await asyncio.gather(*(store.put_checkpoint("r1", chunks(data), limit=1000) for data in contents))
        assert await checkpoint(store, "r1") in contents
        assert await store.sweep() == 0

    async def test_equal_checkpoints_and_blobs_go_one_by_one(self, store: Store) -> None:
        blob = await store.write_blob(chunks(b"same"), limit=9)
        await store.put_model(model("m", digest=blob.digest))
        for run_id in ("r1", "r2"):
            await store.put_checkpoint(run_id, chunks(b"same"), limit=9)
        for _ in range(2):
            await store.delete_checkpoint("r1")
            assert await store.checkpoint_path("r1") is None
        assert await checkpoint(store, "r2") == b"same"
        await store.delete_checkpoint("r2")
        assert await store.sweep() == 0, "the bytes are gone already"
        assert await store.check_blob(blob.digest)

    async def test_a_sweep_takes_the_checkpoints_of_runs_that_are_over(self, store: Store) -> None:
        await store.put_job(job("r1", state=JobState.INTERRUPTED))
        await store.put_job(job("r2", state=JobState.FINISHED))
        for run_id in ("r1", "r2"):
            await store.put_checkpoint(run_id, chunks(run_id.encode()), limit=9)
        assert await store.sweep() == 1
        assert await checkpoint(store, "r1") == b"r1"
        assert await store.checkpoint_path("r2") is None
