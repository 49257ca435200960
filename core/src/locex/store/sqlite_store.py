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
from locex.store.blobs import DIGEST, BlobFolder
from locex.store.database import Database
from locex.store.protocol import Blob, Page
from locex.store.records import dump_record, load_record

NEWEST_FIRST = "ORDER BY created DESC, rowid DESC"


class SqliteStore:
    """`locex.store.protocol.Store` in one folder, which this process must own (`locex.store.lock`)."""

    def __init__(self, folder: Path, *, sweep_grace: float) -> None:
        """``sweep_grace``: seconds for which `sweep` keeps what nothing refers to."""
        self._folder = folder
        self._database = Database(folder / "store.sqlite3")
        self._blobs = BlobFolder(folder / "blobs", grace=sweep_grace)

    async def open(self) -> None:
        """Open or create the store; raise `StoreUnavailable`."""
        try:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreUnavailable(
                f"the folder {self._folder} cannot be made: {error.strerror}",
                remedy="name a folder that this user may write to",
            ) from error
        await self._blobs.open()
        await self._database.open()

    async def close(self) -> None:
        """Release everything."""
        await self._database.close()

    async def put_job(self, record: JobRecord) -> None:
        """Insert or replace the record of ``record.run_id``."""
        await self._database.write(
            "INSERT INTO jobs (run_id, training_id, state, created, record) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (run_id) DO UPDATE SET training_id = excluded.training_id, state = excluded.state,"
            " created = excluded.created, record = excluded.record",
            (record.run_id, *_columns(record)),
        )

    async def get_job(self, run_id: str) -> JobRecord | None:
        """Return a run's record."""
        rows = await self._database.rows("SELECT record FROM jobs WHERE run_id = ?", (run_id,))
        return load_record(rows[0][0]) if rows else None

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
        return Page(records=[load_record(text) for (text,) in rows], total=total)

    async def claim_job(self, run_id: str, expected: JobState, claimed: JobRecord) -> bool:
        """Replace the record if its state is still ``expected``; tell whether it was."""
        changed = await self._database.write(
            "UPDATE jobs SET training_id = ?, state = ?, created = ?, record = ? WHERE run_id = ? AND state = ?",
            (*_columns(claimed), run_id, expected.value),
        )
        return changed == 1

    async def append_event(self, run_id: str, kind: str, content: Mapping[str, Any]) -> JobEvent:
        """Append an event to a run; ids rise by one from 1."""
        event = JobEvent(id=0, run_id=run_id, time=time.time(), kind=kind, content=dict(content))
        (event.id,) = await self._database.write_returning(
            "INSERT INTO events (run_id, id, time, kind, content)"
            " SELECT ?, coalesce(max(id), 0) + 1, ?, ?, ? FROM events WHERE run_id = ? RETURNING id",
            (run_id, event.time, kind, json.dumps(event.content), run_id),
        )
        return event

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

    async def put_model(self, model: StoredModel, *, replace: bool = True) -> bool:
        """Insert or replace a model's metadata; False if it exists and ``replace`` is False."""
        changed = await self._database.write(
            "INSERT INTO models (name, version, record) VALUES (?, ?, ?)"
            " ON CONFLICT (name, version) DO UPDATE SET record = excluded.record WHERE ?",
            (model.model_name, model.model_version, dump_record(model), replace),
        )
        return changed == 1

    async def get_model(self, name: str, version: str) -> StoredModel | None:
        """Return a model's metadata."""
        rows = await self._database.rows("SELECT record FROM models WHERE name = ? AND version = ?", (name, version))
        return StoredModel.model_validate_json(rows[0][0]) if rows else None

    async def list_models(self) -> list[StoredModel]:
        """Return all models by name and version."""
        rows = await self._database.rows("SELECT record FROM models ORDER BY name, version")
        return [StoredModel.model_validate_json(text) for (text,) in rows]

    async def delete_model(self, name: str, version: str) -> bool:
        """Delete a model; `sweep` takes its bytes. Tell whether it was there."""
        return await self._database.write("DELETE FROM models WHERE name = ? AND version = ?", (name, version)) == 1

    async def write_blob(self, chunks: AsyncIterator[bytes], *, limit: int) -> Blob:
        """Store bytes under their digest; raise `TooLarge` beyond ``limit`` bytes, leaving nothing behind."""
        return await self._blobs.write(chunks, limit=limit)

    async def blob_path(self, digest: str) -> Path | None:
        """Return the file with the bytes; never write to it."""
        return await self._blobs.path(digest)

    async def sweep(self) -> int:
        """Delete blobs that neither a model nor a job's final model names, and temporary files; return how many."""
        rows = await self._database.rows(
            "SELECT record FROM models UNION ALL"
            " SELECT record ->> '$.model' FROM jobs WHERE record ->> '$.model' IS NOT NULL"
        )
        return await self._blobs.sweep({digest for (text,) in rows for digest in DIGEST.findall(text)})

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


def _columns(record: JobRecord) -> tuple[str, str, float, str]:
    return record.training_id, record.state.value, record.created, dump_record(record)
