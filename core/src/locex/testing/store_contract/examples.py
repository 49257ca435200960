"""Records, metadata and bytes to try a store with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from locex.schemas.model import ModelMeta, StoredModel
from locex.schemas.record import JobRecord, JobState
from locex.store.protocol import Store

COMPETITORS = 20


def job(run_id: str, training_id: str = "t", *, created: float = 1.0, **content: Any) -> JobRecord:
    """Return a record of a queued run, with ``content`` in place of the defaults."""
    fields = {"state": JobState.QUEUED, "updated": created, "configuration": {"epochs": 1}, "library": "any"}
    return JobRecord(run_id=run_id, training_id=training_id, created=created, **(fields | content))


def model(name: str, version: str = "1", **content: Any) -> StoredModel:
    """Return a model's metadata."""
    meta = ModelMeta(library="any", description="example")
    return StoredModel(model_name=name, model_version=version, meta=meta, created=1.0, updated=1.0, **content)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield bytes as a request would bring them."""
    for part in parts:
        await asyncio.sleep(0)
        yield part


async def checkpoint(store: Store, run_id: str) -> bytes:
    """Return a checkpoint that must be there."""
    path = await store.checkpoint_path(run_id)
    assert path is not None
    return path.read_bytes()
