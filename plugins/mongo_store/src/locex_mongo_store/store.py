"""The store: records in collections, bytes in GridFS, jobs apart by node."""

from __future__ import annotations

import time
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bson import Binary
from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from locex.errors import InvalidConfiguration
from locex.schemas.model import StoredModel
from locex.schemas.record import JobEvent, JobRecord, JobState
from locex.store.protocol import Blob, Page, StoreContext
from locex.store.records import digests_of, dump_job, dump_model, load_job, load_model
from locex_mongo_store.blobs import GridBlobs
from locex_mongo_store.checkpoints import Checkpoints
from locex_mongo_store.driver import BLOBS, CHECKPOINTS, Collection, Deployment, Document, Session
from locex_mongo_store.events import Events
from locex_mongo_store.identity import identity_of
from locex_mongo_store.layout import NEWEST_FIRST, prepare
from locex_mongo_store.lease import Lease
from locex_mongo_store.ledgers import Ledgers
from locex_mongo_store.options import MongoConfig

COMPRESSED_FROM = 1 << 20
"""Characters from which on a record is compressed: a document holds 16 MB."""

DAY = 86400


class MongoStore:
    """`locex.store.protocol.Store` of one node in a database."""

    def __init__(self, deployment: Deployment, config: MongoConfig, context: StoreContext) -> None:
        self._deployment = deployment
        self._config = config
        self._context = context
        self._node = ""
        self._lease: Lease | None = None
        self._events = Events(deployment)
        self._ledgers = Ledgers(deployment)
        self._blobs = self._bucket(BLOBS, "copies")
        self._checkpoints = Checkpoints(deployment, self._bucket(CHECKPOINTS, "checkpoints"))

    async def open(self) -> None:
        """Connect, make what a new database lacks, and take the node's name; raise `StoreUnavailable`."""
        identity = identity_of(self._context.folder, self._context.node)
        self._node = identity.name
        try:
            await self._blobs.open()
            await self._checkpoints.open()
            await self._deployment.open()
            await prepare(self._deployment)
            lease = Lease(self._deployment, identity, self._config.lease)
            await lease.acquire()
            self._lease = lease
        except BaseException:
            await self._deployment.close()
            raise

    async def close(self) -> None:
        """Give the node's name up and release everything."""
        if self._lease is not None:
            await self._lease.release()
            self._lease = None
        await self._deployment.close()

    # --- jobs

    async def put_job(self, record: JobRecord) -> None:
        """Insert or replace the record of ``record.run_id``; raise `InvalidConfiguration` for another node's run."""
        with self._deployment.faults():
            await self._put_job(record, None)

    async def save_job(self, record: JobRecord, kind: str, content: Mapping[str, Any]) -> JobEvent:
        """Put a record and append the event that tells why; without transactions the record first."""
        return await self._events.append(
            record.run_id, kind, content, before=lambda session: self._put_job(record, session)
        )

    async def get_job(self, run_id: str) -> JobRecord | None:
        """Return a run's record."""
        with self._deployment.faults():
            row = await self._jobs.find_one({"_id": run_id, "node": self._node})
        return _job(row) if row else None

    async def latest_job(self, training_id: str) -> JobRecord | None:
        """Return the newest run's record of a training."""
        with self._deployment.faults():
            row = await self._jobs.find_one({"node": self._node, "training_id": training_id}, sort=NEWEST_FIRST)
        return _job(row) if row else None

    async def list_jobs(
        self, *, states: Sequence[JobState] = (), training_id: str | None = None, offset: int = 0, limit: int = 100
    ) -> Page:
        """Return runs, newest first."""
        wanted: Document = {"node": self._node}
        if states:
            wanted["state"] = {"$in": [state.value for state in states]}
        if training_id is not None:
            wanted["training_id"] = training_id
        with self._deployment.faults():
            total = await self._jobs.count_documents(wanted)
            rows = await self._jobs.find(wanted).sort(NEWEST_FIRST).skip(offset).limit(limit).to_list(None)
        return Page(records=[_job(row) for row in rows], total=total)

    async def claim_job(self, run_id: str, expected: JobState, claimed: JobRecord) -> bool:
        """Replace the record if its state is still ``expected``; tell whether it was, or is ``claimed`` already."""
        fields = _fields(claimed)
        untaken = [{"state": expected.value}, {"record": fields["record"]}]
        with self._deployment.faults():
            taken = await self._jobs.update_one({"_id": run_id, "node": self._node, "$or": untaken}, {"$set": fields})
        return taken.matched_count == 1

    # --- events

    async def append_event(self, run_id: str, kind: str, content: Mapping[str, Any]) -> JobEvent:
        """Append an event to a run; ids rise by one from 1."""
        return await self._events.append(run_id, kind, content)

    async def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """Return a run's events after an id, in order."""
        return await self._events.read(run_id, after=after, limit=limit)

    async def restore_events(self, events: Sequence[JobEvent]) -> None:
        """Insert events of another store as they are; those that are there stay."""
        await self._events.restore(events)

    # --- models

    async def put_model(self, model: StoredModel, *, replace: bool = True) -> bool:
        """Insert or replace a model's metadata; False if another exists and ``replace`` is False."""
        key = {"name": model.model_name, "version": model.model_version}
        fields = {"record": dump_model(model), "digests": digests_of(model)}
        with self._deployment.faults():
            if replace:
                await self._models.update_one(key, {"$set": fields}, upsert=True)
                return True
            try:
                await self._models.insert_one({**key, **fields})
            except DuplicateKeyError:
                return await self._models.find_one({**key, "record": fields["record"]}, {"_id": 1}) is not None
        return True

    async def get_model(self, name: str, version: str) -> StoredModel | None:
        """Return a model's metadata."""
        with self._deployment.faults():
            row = await self._models.find_one({"name": name, "version": version})
        return load_model(row["record"]) if row else None

    async def list_models(self) -> list[StoredModel]:
        """Return all models by name and version."""
        with self._deployment.faults():
            found = self._models.find().sort([("name", ASCENDING), ("version", ASCENDING)])
            return [load_model(row["record"]) for row in await found.to_list(None)]

    async def delete_model(self, name: str, version: str) -> bool:
        """Delete a model; `sweep` takes its bytes. Tell whether it was there."""
        with self._deployment.faults():
            return (await self._models.delete_one({"name": name, "version": version})).deleted_count == 1

    # --- blobs

    async def write_blob(self, chunks: AsyncIterator[bytes], *, limit: int) -> Blob:
        """Store bytes under their digest; raise `TooLarge` beyond ``limit`` bytes, leaving nothing behind."""
        return await self._blobs.write(chunks, limit=limit)

    async def blob_path(self, digest: str) -> Path | None:
        """Return a local copy of the bytes; never write to it."""
        return await self._blobs.path(digest)

    async def check_blob(self, digest: str) -> bool:
        """Read the bytes from the database; tell whether they are there and have this digest."""
        return await self._blobs.check(digest)

    async def sweep(self) -> int:
        """Delete blobs that no node's model or job names, unfinished uploads, checkpoints of ended runs.

        Return how many.
        """
        referenced = set[str]()
        with self._deployment.faults():
            for collection in (self._models, self._jobs):
                async for row in collection.find({"digests": {"$ne": []}}, {"digests": 1}):
                    referenced.update(row["digests"])
        return await self._blobs.sweep(referenced) + await self._checkpoints.sweep(self._jobs)

    # --- checkpoints

    async def put_checkpoint(self, run_id: str, chunks: AsyncIterator[bytes], *, limit: int) -> None:
        """Put a run's checkpoint in place of its older one, whose bytes go; raise `TooLarge`."""
        await self._checkpoints.put(self._node, run_id, chunks, limit=limit)

    async def checkpoint_path(self, run_id: str) -> Path | None:
        """Return a local copy of a run's checkpoint, good until the next is put; never write to it."""
        return await self._checkpoints.path(self._node, run_id)

    async def delete_checkpoint(self, run_id: str) -> None:
        """Delete a run's checkpoint, if it has one, and its bytes."""
        await self._checkpoints.delete(self._node, run_id)

    # --- ledgers

    async def read_ledger(self, dataset: str, unit: str) -> tuple[int, list[dict[str, Any]]]:
        """Return a privacy ledger's version (0: empty) and its events."""
        return await self._ledgers.read(dataset, unit)

    async def append_ledger(self, dataset: str, unit: str, version: int, event: Mapping[str, Any]) -> bool:
        """Append an event if the version is still current; tell whether it was."""
        return await self._ledgers.append(dataset, unit, version, event)

    async def list_ledgers(self) -> list[tuple[str, str]]:
        """Return data set and unit of every ledger, in order."""
        return await self._ledgers.names()

    def _bucket(self, name: str, folder: str) -> GridBlobs:
        keep = self._config.cache_days * DAY
        return GridBlobs(
            self._deployment, name, self._context.folder / folder, grace=self._config.sweep_grace, keep=keep
        )

    @property
    def _jobs(self) -> Collection:
        return self._deployment.collection("jobs")

    @property
    def _models(self) -> Collection:
        return self._deployment.collection("models")

    async def _put_job(self, record: JobRecord, session: Session) -> None:
        key = {"_id": record.run_id, "node": self._node}
        change = {"$set": _fields(record), "$setOnInsert": {"order": time.time_ns()}}
        try:
            await self._jobs.update_one(key, change, upsert=True, session=session)
        except DuplicateKeyError:
            known = await self._jobs.find_one({"_id": record.run_id}, {"node": 1})
            if known is not None and known["node"] != self._node:
                raise InvalidConfiguration(
                    f"the run {record.run_id} is one of the node {known['node']} in {self._deployment.where}",
                    remedy="give each node a LOCEX_NODE of its own",
                ) from None
            if session is not None:  # another put it meanwhile, and this transaction is over: its caller begins anew
                raise
            await self._jobs.update_one(key, change)


def _fields(record: JobRecord) -> Document:
    text = dump_job(record)
    return {
        "training_id": record.training_id,
        "state": record.state.value,
        "created": record.created,
        "record": text if len(text) < COMPRESSED_FROM else Binary(zlib.compress(text.encode())),
        "digests": digests_of(record),
    }


def _job(row: Mapping[str, Any]) -> JobRecord:
    content = row["record"]
    return load_job(content if isinstance(content, str) else zlib.decompress(content))
