"""Checkpoints of a node's runs: for each a document that names its bytes, which lie in a bucket of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from locex.schemas.record import JobState
from locex_mongo_store.blobs import GridBlobs
from locex_mongo_store.driver import CHECKPOINTS, Collection, Deployment, Document

_OVER = [state.value for state in JobState if state.over]


class Checkpoints:
    """The collection ``checkpoints``, whose ``_id`` is node and run, and the bucket of the same name.

    Exchanges wait for each other: bytes that one of them discards no other writes again meanwhile. Of other nodes none
    has the same bytes, which hold a random name.
    """

    def __init__(self, deployment: Deployment, blobs: GridBlobs) -> None:
        self._deployment = deployment
        self._blobs = blobs
        self._exchanging = asyncio.Lock()

    async def open(self) -> None:
        """Make the folder of copies."""
        await self._blobs.open()

    async def put(self, node: str, run_id: str, chunks: AsyncIterator[bytes], *, limit: int) -> None:
        """Put bytes, then exchange the reference, then delete the older bytes."""
        async with self._exchanging:
            # Who wrote it has it: a copy is for those that lost it.
            blob = await self._blobs.write(chunks, limit=limit, copy=False)
            with self._deployment.faults():
                change = {"$set": {"digest": blob.digest}}
                older = await self._references.find_one_and_update(_key(node, run_id), change, upsert=True)
            await self._discard(older)

    async def path(self, node: str, run_id: str) -> Path | None:
        """Return a local file with the bytes."""
        with self._deployment.faults():
            known = await self._references.find_one(_key(node, run_id))
        return await self._blobs.path(known["digest"]) if known else None

    async def delete(self, node: str, run_id: str) -> None:
        """Delete a reference, and its bytes."""
        async with self._exchanging:
            with self._deployment.faults():
                deleted = await self._references.find_one_and_delete(_key(node, run_id))
            await self._discard(deleted)

    async def sweep(self, jobs: Collection) -> int:
        """Delete references of runs that are over, and bytes without a reference; return how many bytes."""
        referenced = set[str]()
        with self._deployment.faults():
            async for known in self._references.find():
                if await jobs.find_one({"_id": known["_id"]["run"], "state": {"$in": _OVER}}, {"_id": 1}):
                    await self._references.delete_one({"_id": known["_id"]})
                else:
                    referenced.add(known["digest"])
        return await self._blobs.sweep(referenced)

    @property
    def _references(self) -> Collection:
        return self._deployment.collection(CHECKPOINTS)

    async def _discard(self, reference: Document | None) -> None:
        if reference is None:
            return
        with self._deployment.faults():
            used = await self._references.find_one({"digest": reference["digest"]}, {"_id": 1})
        if used is None:
            await self._blobs.discard(reference["digest"])


def _key(node: str, run_id: str) -> Document:
    return {"_id": {"node": node, "run": run_id}}
