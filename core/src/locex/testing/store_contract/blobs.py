"""Bytes under their digests."""
# A test's name says what it shows, and expected values are literal.
# ruff: noqa: D102, PLR2004

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import psutil
import pytest

from locex.errors import TooLarge
from locex.store.protocol import Store
from locex.testing.store_contract.examples import COMPETITORS, chunks, job, model


class BlobContract:
    """Bytes are stored whole or not at all, and go when nothing refers to them."""

    async def test_bytes_come_back_under_their_digest(self, store: Store) -> None:
        parts = [bytes([number]) * 700_000 for number in range(5)]
        blob = await store.write_blob(chunks(*parts), limit=10_000_000)
        assert blob.digest == hashlib.sha256(b"".join(parts)).hexdigest()
        assert blob.size == 3_500_000
        path = await store.blob_path(blob.digest)
        assert path is not None
        assert path.read_bytes() == b"".join(parts)

    async def test_what_is_stored_can_be_checked(self, store: Store) -> None:
        blob = await store.write_blob(chunks(b"weights" * 1000), limit=10_000)
        assert await store.check_blob(blob.digest)
        assert not await store.check_blob("0" * 64)

    async def test_equal_bytes_are_one_blob(self, store: Store) -> None:
        blobs = await asyncio.gather(*(store.write_blob(chunks(b"same"), limit=4) for _ in range(COMPETITORS)))
        assert len(set(blobs)) == 1
        assert await store.sweep() == 1

    async def test_no_bytes_are_a_blob(self, store: Store) -> None:
        blob = await store.write_blob(chunks(), limit=1)
        path = await store.blob_path(blob.digest)
        assert path is not None
        assert path.read_bytes() == b""

    @pytest.mark.parametrize("digest", ["0" * 64, "", "..", "../../etc/passwd", "A" * 64])
    async def test_unknown_digests_have_no_path(self, store: Store, digest: str) -> None:
        assert await store.blob_path(digest) is None

    async def test_bytes_beyond_the_limit_leave_nothing(self, store: Store) -> None:
        with pytest.raises(TooLarge):
            await store.write_blob(chunks(b"12345", b"67890"), limit=9)
        assert await store.blob_path(hashlib.sha256(b"1234567890").hexdigest()) is None
        assert await store.sweep() == 0

    async def test_a_broken_upload_leaves_nothing(self, store: Store) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await store.write_blob(broken(), limit=10_000_000)
        assert await store.sweep() == 0

    async def test_a_cancelled_upload_leaves_nothing(self, store: Store) -> None:
        arrived = asyncio.Event()

        async def stalled() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            arrived.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.write_blob(stalled(), limit=10_000_000))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.sweep() == 0

    async def test_a_sweep_takes_what_nothing_refers_to(self, store: Store) -> None:
        digests = [(await store.write_blob(chunks(data), limit=9)).digest for data in (b"a", b"b", b"c")]
        await store.put_model(model("m", digest=digests[0]))
        await store.put_job(job("r1", model={"files": [{"digest": digests[1]}]}))
        assert await store.sweep() == 1
        assert [await store.blob_path(digest) is not None for digest in digests] == [True, True, False]
        await store.delete_model("m", "1")
        assert await store.sweep() == 1
        assert await store.blob_path(digests[0]) is None

    async def test_a_sweep_spares_what_is_being_written(self, store: Store) -> None:
        swept = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            assert await store.sweep() == 0
            swept.set()
            yield b"y"

        blob = await store.write_blob(slow(), limit=10_000_000)
        assert swept.is_set()
        path = await store.blob_path(blob.digest)
        assert path is not None
        assert path.stat().st_size == 2_000_001


class LargeBlobs:
    """1 GiB is streamed, not held."""

    SIZE = 1 << 30
    MEMORY = 320 << 20
    """Bytes by which the process may grow meanwhile; the allocator keeps some for each thread."""

    async def test_a_blob_of_1_gib_is_streamed(self, store: Store) -> None:
        process, part, expected, peaks = psutil.Process(), bytes(range(256)) * 4096, hashlib.sha256(), list[int]()

        async def large() -> AsyncIterator[bytes]:
            for number in range(self.SIZE // len(part)):
                chunk = number.to_bytes(8, "big") + part[8:]
                expected.update(chunk)
                yield chunk

        async def watch() -> None:
            while True:
                peaks.append(process.memory_info().rss)
                await asyncio.sleep(0.05)

        before = process.memory_info().rss
        watching = asyncio.create_task(watch())
        try:
            blob = await store.write_blob(large(), limit=self.SIZE)
            assert await store.check_blob(blob.digest)
            path = await store.blob_path(blob.digest)
        finally:
            watching.cancel()
        assert blob.digest == expected.hexdigest()
        assert blob.size == self.SIZE
        assert path is not None
        assert path.stat().st_size == self.SIZE
        assert max(peaks) - before < self.MEMORY
