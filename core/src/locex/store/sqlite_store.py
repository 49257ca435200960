"""The embedded store: records in SQLite, bytes in files."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from locex.errors import StoreUnavailable
from locex.schemas.model import StoredModel
from locex.schemas.record import JobEvent, JobRecord, JobState
from locex.store.blobs import BlobFolder
from locex.store.database import Database
from locex.store.lock import FolderLock
from locex.store.protocol import Blob, Page
from locex.store.records import DIGEST, dump_job, dump_model, load_job, load_model

NEWEST_FIRST = "ORDER BY created DESC, rowid DESC"

PUT_JOB = """
INSERT INTO jobs (run_id, training_id, state, created, record) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET
    training_id = excluded.training_id, state = excluded.state, created = excluded.created, record = excluded.record
"""
APPEND_EVENT = """
INSERT INTO events (run_id, id, time, kind, content)
SELECT ?, coalesce(max(id), 0) + 1, ?, ?, ? FROM events WHERE run_id = ? RETURNING id
"""
PUT_CHECKPOINT = """
INSERT INTO checkpoints (run_id, digest) VALUES (?, ?) ON CONFLICT (run_id) DO UPDATE SET digest = excluded.digest
"""
DELETE_ENDED_CHECKPOINTS = """
DELETE FROM checkpoints
WHERE run_id IN (SELECT run_id FROM jobs WHERE state IN (SELECT value FROM json_each(?)))
"""
RESTORE_EVENT = "INSERT INTO events (run_id, id, time, kind, content) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


class SqliteStore:
    """`locex.store.protocol.Store` in one folder, which this process must own (`locex.store.lock`)."""

    def __init__(self, folder: Path, *, sweep_grace: float, lock: FolderLock | None = None) -> None:
        """``sweep_grace``: seconds for which `sweep` keeps what nothing refers to.

        ``lock``: that of a folder which is not the state folder, held while the store is open.
        """
        self._folder = folder
        self._lock = lock
        self._database = Database(folder / "store.sqlite3")
        self._blobs = BlobFolder(folder / "blobs", grace=sweep_grace)
        # Apart from the blobs: their bytes go at once, which must not take those of a model.
        self._checkpoints = BlobFolder(folder / "checkpoints", grace=sweep_grace)
        self._exchanging = asyncio.Lock()

    async def open(self) -> None:
        """Open or create the store; raise `StoreUnavailable`."""
        try:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreUnavailable(
                f"the folder {self._folder} cannot be made: {error.strerror}",
                remedy="name a folder that this user may write to",
            ) from error
        if self._lock is not None:
            await asyncio.to_thread(self._lock.acquire)
        try:
            await self._blobs.open()
            await self._checkpoints.open()
            await self._database.open()
        except BaseException:
            self._release()
            raise

    async def close(self) -> None:
        """Release everything."""
        await self._database.close()
        self._release()

    async def put_job(self, record: JobRecord) -> None:
        """Insert or replace the record of ``record.run_id``."""
        await self._database.write(PUT_JOB, (record.run_id, *_columns(record)))

    async def save_job(self, record: JobRecord, kind: str, content: Mapping[str, Any]) -> JobEvent:
        """Put a record and append the event that tells why: both or neither."""
        return await self._append(record.run_id, kind, content, (PUT_JOB, (record.run_id, *_columns(record))))

    async def get_job(self, run_id: str) -> JobRecord | None:
        """Return a run's record."""
        rows = await self._database.rows("SELECT record FROM jobs WHERE run_id = ?", (run_id,))
        return load_job(rows[0][0]) if rows else None

    async def latest_job(self, training_id: str) -> JobRecord | None:
        """Return the newest run's record of a training."""
        page = await self.list_jobs(training_id=training_id, limit=1)
        return page.records[0] if page.records else None

    async def list_jobs(
        self, *, states: Sequence[JobState] = (), training_id: str | None = None, offset: int = 0, limit: int = 100
    ) -> Page:
        """Return runs, newest first."""
        conditions, parameters = ["1"], list[Any]()
        if states:
            conditions.append(f"state IN ({', '.join('?' * len(states))})")
            parameters += [state.value for state in states]
        if training_id is not None:
            conditions.append("training_id = ?")
            parameters.append(training_id)
        where = f"FROM jobs WHERE {' AND '.join(conditions)}"
        ((total,),) = await self._database.rows(f"SELECT count(*) {where}", parameters)
        rows = await self._database.rows(
            f"SELECT record {where} {NEWEST_FIRST} LIMIT ? OFFSET ?", [*parameters, limit, offset]
        )
        return Page(records=[load_job(text) for (text,) in rows], total=total)

    async def claim_job(self, run_id: str, expected: JobState, claimed: JobRecord) -> bool:
        """Replace the record if its state is still ``expected``; tell whether it was."""
        changed = await self._database.write(
            "UPDATE jobs SET training_id = ?1, state = ?2, created = ?3, record = ?4"
            " WHERE run_id = ?5 AND (state = ?6 OR record = ?4)",
            (*_columns(claimed), run_id, expected.value),
        )
        return changed == 1

    async def append_event(self, run_id: str, kind: str, content: Mapping[str, Any]) -> JobEvent:
        """Append an event to a run; ids rise by one from 1."""
        return await self._append(run_id, kind, content)

    async def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """Return a run's events after an id, in order."""
        rows = await self._database.rows(
            "SELECT id, time, kind, content FROM events WHERE run_id = ? AND id > ? ORDER BY id LIMIT ?",
            (run_id, after, limit),
        )
        return [
            JobEvent(id=number, run_id=run_id, time=moment, kind=kind, content=json.loads(content))
            for number, moment, kind, content in rows
        ]

    async def restore_events(self, events: Sequence[JobEvent]) -> None:
        """Insert events of another store as they are; those that are there stay."""
        rows = [(one.run_id, one.id, one.time, one.kind, json.dumps(one.content)) for one in events]
        await self._database.write_all(*((RESTORE_EVENT, row) for row in rows))

    async def put_model(self, model: StoredModel, *, replace: bool = True) -> bool:
        """Insert or replace a model's metadata; False if it exists and ``replace`` is False."""
        changed = await self._database.write(
            "INSERT INTO models (name, version, record) VALUES (?, ?, ?)"
            " ON CONFLICT (name, version) DO UPDATE SET record = excluded.record"
            " WHERE ? OR record = excluded.record",
            (model.model_name, model.model_version, dump_model(model), replace),
        )
        return changed == 1

    async def get_model(self, name: str, version: str) -> StoredModel | None:
        """Return a model's metadata."""
        rows = await self._database.rows("SELECT record FROM models WHERE name = ? AND version = ?", (name, version))
        return load_model(rows[0][0]) if rows else None

    async def list_models(self) -> list[StoredModel]:
        """Return all models by name and version."""
        rows = await self._database.rows("SELECT record FROM models ORDER BY name, version")
        return [load_model(text) for (text,) in rows]

    async def delete_model(self, name: str, version: str) -> bool:
        """Delete a model; `sweep` takes its bytes. Tell whether it was there."""
        return await self._database.write("DELETE FROM models WHERE name = ? AND version = ?", (name, version)) == 1

    async def write_blob(self, chunks: AsyncIterator[bytes], *, limit: int) -> Blob:
        """Store bytes under their digest; raise `TooLarge` beyond ``limit`` bytes, leaving nothing behind."""
        return await self._blobs.write(chunks, limit=limit)

    async def blob_path(self, digest: str) -> Path | None:
        """Return the file with the bytes; never write to it."""
        return await self._blobs.path(digest)

    async def check_blob(self, digest: str) -> bool:
        """Read the stored bytes; tell whether they are there and have this digest."""
        return await self._blobs.check(digest)

    async def sweep(self) -> int:
        """Delete blobs that neither a model nor a job's final model names, temporary files, checkpoints of ended runs.

        Return how many.
        """
        rows = await self._database.rows(
            "SELECT record FROM models UNION ALL"
            " SELECT record ->> '$.model' FROM jobs WHERE record ->> '$.model' IS NOT NULL"
        )
        swept = await self._blobs.sweep({digest for (text,) in rows for digest in DIGEST.findall(text)})
        over = json.dumps([state.value for state in JobState if state.over])
        await self._database.write(DELETE_ENDED_CHECKPOINTS, (over,))
        kept = await self._database.rows("SELECT digest FROM checkpoints")
        return swept + await self._checkpoints.sweep({digest for (digest,) in kept})

    async def put_checkpoint(self, run_id: str, chunks: AsyncIterator[bytes], *, limit: int) -> None:
        """Put a run's checkpoint in place of its older one, whose bytes go; raise `TooLarge`."""
        async with self._exchanging:
            blob = await self._checkpoints.write(chunks, limit=limit)
            older = ("SELECT digest FROM checkpoints WHERE run_id = ?", (run_id,))
            await self._discard(await self._database.write_all(older, (PUT_CHECKPOINT, (run_id, blob.digest))))

    async def checkpoint_path(self, run_id: str) -> Path | None:
        """Return the file with a run's checkpoint, good until the next is put; never write to it."""
        rows = await self._database.rows("SELECT digest FROM checkpoints WHERE run_id = ?", (run_id,))
        return await self._checkpoints.path(rows[0][0]) if rows else None

    async def delete_checkpoint(self, run_id: str) -> None:
        """Delete a run's checkpoint, if it has one, and its bytes."""
        async with self._exchanging:
            deleted = ("DELETE FROM checkpoints WHERE run_id = ? RETURNING digest", (run_id,))
            await self._discard(await self._database.write_all(deleted))

    async def read_ledger(self, dataset: str, unit: str) -> tuple[int, list[dict[str, Any]]]:
        """Return a privacy ledger's version (0: empty) and its events."""
        rows = await self._database.rows(
            "SELECT version, event FROM ledger WHERE dataset = ? AND unit = ? ORDER BY version", (dataset, unit)
        )
        return (rows[-1][0] if rows else 0), [json.loads(event) for _, event in rows]

    async def append_ledger(self, dataset: str, unit: str, version: int, event: Mapping[str, Any]) -> bool:
        """Append an event if the version is still current; tell whether it was."""
        changed = await self._database.write(
            "INSERT INTO ledger (dataset, unit, version, event)"
            " SELECT ?, ?, ? + 1, ? WHERE ? = (SELECT coalesce(max(version), 0) FROM ledger"
            " WHERE dataset = ? AND unit = ?)",
            (dataset, unit, version, json.dumps(dict(event)), version, dataset, unit),
        )
        return changed == 1

    async def list_ledgers(self) -> list[tuple[str, str]]:
        """Return data set and unit of every ledger, in order."""
        rows = await self._database.rows("SELECT DISTINCT dataset, unit FROM ledger ORDER BY dataset, unit")
        return [(dataset, unit) for dataset, unit in rows]

    async def _append(
        self, run_id: str, kind: str, content: Mapping[str, Any], *before: tuple[str, Sequence[Any]]
    ) -> JobEvent:
        event = JobEvent(id=0, run_id=run_id, time=time.time(), kind=kind, content=dict(content))
        row = (run_id, event.time, kind, json.dumps(event.content), run_id)
        ((event.id,),) = await self._database.write_all(*before, (APPEND_EVENT, row))
        return event

    async def _discard(self, checkpoints: list[tuple[Any, ...]]) -> None:
        for (digest,) in checkpoints:
            if not await self._database.rows("SELECT 1 FROM checkpoints WHERE digest = ?", (digest,)):
                await self._checkpoints.discard(digest)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _columns(record: JobRecord) -> tuple[str, str, float, str]:
    return record.training_id, record.state.value, record.created, dump_job(record)
