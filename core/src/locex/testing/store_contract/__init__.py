"""What every store must do.

Subclass `StoreContract` in a test module and give it two fixtures::

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self, tmp_path): ...    # open, empty, sweeping without grace
        @pytest.fixture
        def reopen(self): ...                   # async (store) -> store: closes it, opens the same data again

Tests are asynchronous (pytest-asyncio in auto mode) and use nothing but the Protocol. `LargeBlobs` takes a while: mark
its subclass, ``@pytest.mark.slow`` or as you call it.
"""
# A test's name says what it shows.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from locex.store.protocol import Store
from locex.testing.store_contract.blobs import BlobContract, LargeBlobs
from locex.testing.store_contract.checkpoints import CheckpointContract
from locex.testing.store_contract.examples import checkpoint, chunks, job, model
from locex.testing.store_contract.jobs import EventContract, JobContract
from locex.testing.store_contract.ledgers import LedgerContract
from locex.testing.store_contract.models import ModelContract
from locex.testing.store_contract.versions import VersionContract

__all__ = ["LargeBlobs", "StoreContract", "checkpoint", "chunks", "job", "model"]

Reopen: TypeAlias = Callable[[Store], Awaitable[Store]]


class StoreContract(
    JobContract, EventContract, VersionContract, ModelContract, BlobContract, CheckpointContract, LedgerContract
):
    """The tests; see the module."""

    async def test_everything_is_there_after_a_restart(self, store: Store, reopen: Reopen) -> None:
        await store.put_job(job("r1"))
        event = await store.append_event("r1", "state", {"state": "QUEUED"})
        await store.put_model(model("m"))
        blob = await store.write_blob(chunks(b"weights"), limit=100)
        await store.put_checkpoint("r1", chunks(b"momentum"), limit=100)
        await store.append_ledger("d", "example", 0, {"n": 1})

        store = await reopen(store)

        assert await store.get_job("r1") == job("r1")
        assert await store.events("r1") == [event]
        assert (await store.append_event("r1", "log", {})).id == event.id + 1
        assert await store.list_models() == [model("m")]
        path = await store.blob_path(blob.digest)
        assert path is not None
        assert path.read_bytes() == b"weights"
        assert await checkpoint(store, "r1") == b"momentum"
        assert await store.read_ledger("d", "example") == (1, [{"n": 1}])
