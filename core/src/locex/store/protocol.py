"""What a store is: jobs, events, models, blobs, checkpoints and privacy ledgers."""

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
    """Where a store may keep things, its URL, and what this node is called where several share a store.

    The URL may hold a password: it belongs into no log, error or record.
    """

    folder: Path
    url: str = ""
    node: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


class Store(Protocol):
    """Jobs, events, models, blobs, checkpoints, ledgers. `locex.testing` holds its contract.

    Created by ``locex_create_store``. Every method is safe under concurrent calls, raises `StoreUnavailable` when the
    store cannot be used, and has made what it wrote durable when it returns. A write whose answer was lost may be asked
    for again, with the same arguments: it is done once.

    Nodes may share a store: jobs, events and checkpoints are those of one node, models, blobs and ledgers are
    everybody's.
    """

    async def open(self) -> None:
        """Open or create the store."""

    async def close(self) -> None:
        """Release everything."""

    async def put_job(self, record: JobRecord) -> None:
        """Insert or replace the record of ``record.run_id``."""

    async def save_job(self, record: JobRecord, kind: str, content: Mapping[str, Any]) -> JobEvent:
        """Put a record and append the event that tells why: both or neither, else (no transactions) the record first.

        Return the event.
        """

    async def get_job(self, run_id: str) -> JobRecord | None:
        """Return a run's record."""

    async def latest_job(self, training_id: str) -> JobRecord | None:
        """Return the newest run's record of a training."""

    async def list_jobs(
        self, *, states: Sequence[JobState] = (), training_id: str | None = None, offset: int = 0, limit: int = 100
    ) -> Page:
        """Return runs, newest first."""

    async def claim_job(self, run_id: str, expected: JobState, claimed: JobRecord) -> bool:
        """Replace the record if its state is still ``expected``, in one atomic statement; tell whether it was.

        Also True if the record is ``claimed`` already: so claims of different workers must differ.
        """

    async def append_event(self, run_id: str, kind: str, content: Mapping[str, Any]) -> JobEvent:
        """Append an event to a run; ids rise by one from 1."""

    async def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """Return a run's events after an id, in order."""

    async def restore_events(self, events: Sequence[JobEvent]) -> None:
        """Insert events of another store as they are, in order; those that are there stay."""

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

    async def check_blob(self, digest: str) -> bool:
        """Read the stored bytes, not a local copy; tell whether they are there and have this digest."""

    async def sweep(self) -> int:
        """Delete blobs that nothing refers to, temporary files, checkpoints of runs that are over; return how many."""

    async def put_checkpoint(self, run_id: str, chunks: AsyncIterator[bytes], *, limit: int) -> None:
        """Put a run's checkpoint in place of its older one, whose bytes go; raise `TooLarge` beyond ``limit`` bytes.

        Until all is there, and if it never is, the older one stays.
        """

    async def checkpoint_path(self, run_id: str) -> Path | None:
        """Return a local file with a run's checkpoint, good until the next is put; never write to it."""

    async def delete_checkpoint(self, run_id: str) -> None:
        """Delete a run's checkpoint, if it has one, and its bytes."""

    async def read_ledger(self, dataset: str, unit: str) -> tuple[int, list[dict[str, Any]]]:
        """Return a privacy ledger's version (0: empty) and its events."""

    async def append_ledger(self, dataset: str, unit: str, version: int, event: Mapping[str, Any]) -> bool:
        """Append an event if the version is still current; tell whether it was.

        The exception to writes being done once: after a lost answer it says False, since equal charges of two jobs
        must not pass for one.
        """

    async def list_ledgers(self) -> list[tuple[str, str]]:
        """Return data set and unit of every ledger, in order."""
