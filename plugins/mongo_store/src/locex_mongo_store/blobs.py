"""Blobs in GridFS, named by their sha256, with local copies for those who need a file."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import time
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from bson import ObjectId
from pymongo import DESCENDING
from pymongo.errors import DuplicateKeyError

from locex.errors import StoreUnavailable
from locex.store.blobs import BlobFolder
from locex.store.protocol import Blob
from locex.store.records import DIGEST
from locex_mongo_store.driver import CHUNK, Collection, Deployment, Document

BATCH = 4 << 20
"""Bytes sent at once: whole chunks."""


class GridBlobs:
    """A bucket, and a folder of copies.

    Each upload has an id of its own; the file's name is the digest, and unique: of two writers of the same bytes one
    finds at its end that they are there. ``grace``: seconds for which a sweep keeps what is unreferenced or unfinished;
    ``keep``: seconds for which a copy that nobody asked for stays.
    """

    def __init__(self, deployment: Deployment, bucket: str, folder: Path, *, grace: float, keep: float) -> None:
        self._deployment = deployment
        self._bucket = bucket
        self._folder = folder
        self._copies = BlobFolder(folder, grace=grace)
        self._grace = grace
        self._keep = keep
        self._uploading: set[ObjectId] = set()

    async def open(self) -> None:
        """Make the folder."""
        await self._copies.open()

    async def write(self, chunks: AsyncIterator[bytes], *, limit: int, copy: bool = True) -> Blob:
        """Store bytes: into a local file, which gives the digest, and from there into the database.

        The file stays if ``copy``; else nobody may write the same bytes at this moment.
        """
        blob = await self._copies.write(chunks, limit=limit)
        path = await self._copies.path(blob.digest)
        try:
            with self._deployment.faults():
                while path is not None and not await self._touch(blob.digest):
                    await self._upload(path, blob.digest)
        finally:
            if not copy:
                await self._copies.discard(blob.digest)
        return blob

    async def path(self, digest: str) -> Path | None:
        """Return a local file with the bytes, fetched if need be."""
        copy = await self._copies.path(digest)
        if copy is not None:
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread(copy.touch)
                return copy
        if not DIGEST.fullmatch(digest):
            return None
        with self._deployment.faults():
            file = await self._files.find_one({"filename": digest})
        if file is None:
            return None
        fetched = await self._copies.write(self._read(file["_id"]), limit=file["length"])
        if fetched.digest != digest:
            raise StoreUnavailable(
                f"the blob {digest} in the database {self._deployment.where} is damaged",
                remedy="restore the database from a backup, or store the model again",
            )
        return await self._copies.path(digest)

    async def check(self, digest: str) -> bool:
        """Read the bytes from the database; tell whether they have this digest."""
        with self._deployment.faults():
            file = await self._files.find_one({"filename": digest})
        if file is None:
            return False
        found = hashlib.sha256()
        async for chunk in self._read(file["_id"]):
            await asyncio.to_thread(found.update, chunk)
        return found.hexdigest() == digest

    async def sweep(self, referenced: AbstractSet[str]) -> int:
        """Delete old blobs that are not referenced, and what is left of uploads that were not finished."""
        with self._deployment.faults():
            swept = await self._sweep_files(referenced) + await self._sweep_chunks()
        recent = await asyncio.to_thread(self._recent)
        await self._copies.sweep(recent.intersection(referenced))
        return swept

    async def discard(self, digest: str) -> None:
        """Delete a blob to which nothing refers any more, and which nobody writes again at this moment."""
        with self._deployment.faults():
            file = await self._files.find_one_and_delete({"filename": digest})
            if file is not None:
                await self._chunks.delete_many({"files_id": file["_id"]})
        await self._copies.discard(digest)

    @property
    def _files(self) -> Collection:
        return self._deployment.collection(f"{self._bucket}.files")

    @property
    def _chunks(self) -> Collection:
        return self._deployment.collection(f"{self._bucket}.chunks")

    async def _touch(self, digest: str) -> bool:
        """Make a blob young, so that no sweep takes it before it is referenced; tell whether it is there."""
        found = await self._files.update_one({"filename": digest}, [{"$set": {"metadata.touched": "$$NOW"}}])
        return found.matched_count == 1

    async def _upload(self, path: Path, digest: str) -> None:
        """Write chunks, then the document that makes them a file, as GridFS has them.

        The driver's own stream would gather 48 MB before it sends any, and delete the document after a lost answer,
        when another writer may have been told already that the blob is there.
        """
        identifier = ObjectId()
        self._uploading.add(identifier)
        try:
            length = await self._upload_chunks(path, identifier)
            now = dt.datetime.now(dt.UTC)
            file = {"_id": identifier, "filename": digest, "length": length, "chunkSize": CHUNK, "uploadDate": now}
            await self._files.insert_one(file | {"metadata": {"touched": now}})
        except DuplicateKeyError:  # another writer was first
            await self._chunks.delete_many({"files_id": identifier})
        finally:
            self._uploading.discard(identifier)

    async def _upload_chunks(self, path: Path, identifier: ObjectId) -> int:
        chunks, length = self._chunks, 0
        try:
            with path.open("rb") as file:
                while batch := await asyncio.to_thread(file.read, BATCH):
                    parts = [batch[at : at + CHUNK] for at in range(0, len(batch), CHUNK)]
                    first = length // CHUNK
                    rows = [{"files_id": identifier, "n": n, "data": data} for n, data in enumerate(parts, first)]
                    await chunks.insert_many(rows)
                    length += len(batch)
        except BaseException:
            with contextlib.suppress(Exception):  # what stays is swept
                await asyncio.shield(asyncio.ensure_future(chunks.delete_many({"files_id": identifier})))
            raise
        return length

    async def _read(self, identifier: ObjectId) -> AsyncIterator[bytes]:
        with self._deployment.faults():
            file = await self._deployment.bucket(self._bucket).open_download_stream(identifier)
        while True:
            with self._deployment.faults():
                chunk = await file.readchunk()
            if not chunk:
                return
            yield chunk

    async def _sweep_files(self, referenced: AbstractSet[str]) -> int:
        files, swept = self._files, 0
        old = {"$expr": {"$lte": ["$metadata.touched", {"$subtract": ["$$NOW", int(self._grace * 1000)]}]}}
        async for file in files.find(old, {"filename": 1}):
            if file["filename"] in referenced:
                continue
            # Still old: a writer of the same bytes may have touched it since.
            if (await files.delete_one({"_id": file["_id"], **old})).deleted_count:
                swept += 1
                await self._chunks.delete_many({"files_id": file["_id"]})
        return swept

    async def _sweep_chunks(self) -> int:
        chunks, swept = self._chunks, 0
        orphans: list[Document] = [
            {"$group": {"_id": "$files_id"}},
            {"$lookup": {"from": f"{self._bucket}.files", "localField": "_id", "foreignField": "_id", "as": "file"}},
            {"$match": {"file": []}},
        ]
        before = time.time() - self._grace
        async for orphan in chunks.aggregate(orphans):
            last = await chunks.find_one({"files_id": orphan["_id"]}, {"_id": 1}, sort=[("n", DESCENDING)])
            if last is None or orphan["_id"] in self._uploading or last["_id"].generation_time.timestamp() > before:
                continue
            if not await self._files.count_documents({"_id": orphan["_id"]}):
                await chunks.delete_many({"files_id": orphan["_id"]})
                swept += 1
        return swept

    def _recent(self) -> set[str]:
        since, found = time.time() - self._keep, set()
        for path in self._folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime > since:
                    found.add(path.name)
        return found
