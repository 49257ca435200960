"""What a store is: jobs, events, models, blobs and privacy ledgers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from locex.schemas.model import StoredModel
from locex.schemas.record import JobEvent, JobRecord, JobState


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored bytes: the sha256 that names them, and their number."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the records, newest first, and how many there are in all."""

    records: list[JobRecord]
    total: int


@dataclass(slots=True)
class StoreContext:
    """Where a store may keep things, and its URL."""

    folder: Path
    url: str = ""
    options: dict[str, Any] = field(default_factory=dict)


class Store(Protocol):
    """Jobs, events, models, blobs, ledgers. Created by ``locex_create_store``; `locex.testing` holds its contract.

    Every method is safe under concurrent calls, raises `StoreUnavailable` when the store cannot be used, and has made
    what it wrote durable when it returns.
    """

    async def open(self) -> None:
        """Open or create the store."""

    async def close(self) -> None:
        """Release everything."""

    async def put_job(self, record: JobRecord) -> None:
        """Insert or replace the record of ``record.run_id``."""

    async def get_job(self, run_id: str) -> JobRecord | None:
        """Return a run's record."""

    async def latest_job(self, training_id: str) -> JobRecord | None:
        """Return the newest run's record of a training."""

    async def list_jobs(
        self, *, states: Sequence[JobState] = (), training_id: str | None = None, offset: int = 0, limit: int = 100
    ) -> Page:
        """Return runs, newest first."""

    async def claim_job(self, run_id: str, expected: JobState, claimed: JobRecord) -> bool:
        """Replace the record if its state is still ``expected``, in one atomic statement; tell whether it was."""

    async def append_event(self, run_id: str, kind: str, content: Mapping[str, Any]) -> JobEvent:
        """Append an event to a run; ids rise by one from 1."""

    async def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """Return a run's events after an id, in order."""

    async def put_model(self, model: StoredModel, *, replace: bool = True) -> bool:
        """Insert or replace a model's metadata; False if it exists and ``replace`` is False."""

    async def get_model(self, name: str, version: str) -> StoredModel | None:
        """Return a model's metadata."""

    async def list_models(self) -> list[StoredModel]:
        """Return all models by name and version."""

    async def delete_model(self, name: str, version: str) -> bool:
        """Delete a model; its bytes go when nothing refers to them. Tell whether it was there."""

    async def write_blob(self, chunks: AsyncIterator[bytes], *, limit: int) -> Blob:
        """Store bytes under their digest; raise `TooLarge` beyond ``limit`` bytes, leaving nothing behind."""

    async def blob_path(self, digest: str) -> Path | None:
        """Return a local file with the bytes (fetched, if the store keeps them elsewhere); never write to it."""

    async def sweep(self) -> int:
        """Delete blobs that nothing refers to, and temporary files; return how many."""

    async def read_ledger(self, dataset: str, unit: str) -> tuple[int, list[dict[str, Any]]]:
        """Return a privacy ledger's version (0: empty) and its events."""

    async def append_ledger(self, dataset: str, unit: str, version: int, event: Mapping[str, Any]) -> bool:
        """Append an event if the version is still current; tell whether it was."""
