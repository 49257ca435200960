"""The SQLite database of a store: one connection that writes, one that reads, and what their faults mean."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite

from locex.errors import StoreUnavailable

LAYOUT = 1

SCHEMA = """
CREATE TABLE jobs (
    run_id TEXT NOT NULL UNIQUE, training_id TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX jobs_by_training ON jobs (training_id, created);
CREATE INDEX jobs_by_state ON jobs (state, created);
CREATE INDEX jobs_by_time ON jobs (created);
CREATE TABLE events (
    run_id TEXT NOT NULL, id INTEGER NOT NULL, time REAL NOT NULL, kind TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (run_id, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE models (
    name TEXT NOT NULL, version TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE ledger (
    dataset TEXT NOT NULL, unit TEXT NOT NULL, version INTEGER NOT NULL, event TEXT NOT NULL,
    PRIMARY KEY (dataset, unit, version)
) STRICT, WITHOUT ROWID;
"""

CHECKPOINTS = "CREATE TABLE IF NOT EXISTS checkpoints (run_id TEXT PRIMARY KEY, digest TEXT NOT NULL) STRICT"
"""Not in the first locex: one that does not know the table leaves it alone, so the layout is the same."""


class Database:
    """Statements on one file. A write is one transaction, durable when it returns.

    Writes wait for each other; readers do not wait for them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        """Open the file, making the tables of a new one; raise `StoreUnavailable` for a newer layout."""
        try:
            with self._faults():
                self._path.touch(mode=0o600)
                self._writer = await self._connect()
                await self._prepare()
                self._reader = await self._connect()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close both connections."""
        connections = (self._reader, self._writer)
        self._reader = self._writer = None
        for connection in connections:
            if connection is not None:
                await connection.close()

    async def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with self._faults():
            return [tuple(row) for row in await _opened(self._reader).execute_fetchall(statement, parameters)]

    async def write(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; return how many rows it changed."""
        async with self._turn() as connection, connection.execute(statement, parameters) as cursor:
            return cursor.rowcount

    async def write_all(self, *statements: tuple[str, Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run statements in one transaction; return the rows that they return."""
        async with self._turn() as connection:
            try:
                await connection.execute("BEGIN IMMEDIATE")
                rows = [row for one in statements for row in await connection.execute_fetchall(*one)]
                await connection.execute("COMMIT")
            except BaseException:
                # Its thread takes statements in order: also what a cancelled task has sent already is rolled back.
                await asyncio.shield(asyncio.ensure_future(_rolled_back(connection)))
                raise
            return [tuple(row) for row in rows]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[aiosqlite.Connection]:
        async with self._writing:
            with self._faults():
                yield _opened(self._writer)

    async def _connect(self) -> aiosqlite.Connection:
        connection = await aiosqlite.connect(self._path, isolation_level=None)
        try:
            for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL"):
                await connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            await connection.close()  # its thread is no daemon: left behind, it would keep the process from ending
            raise
        return connection

    async def _prepare(self) -> None:
        connection = _opened(self._writer)
        ((layout,),) = await connection.execute_fetchall("PRAGMA user_version")
        if layout > LAYOUT:
            raise StoreUnavailable(
                f"the database {self._path} has layout {layout}, this locex knows up to {LAYOUT}",
                remedy="upgrade locex-core to the version that wrote it, or name another state folder",
            )
        if layout == 0:
            await connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {LAYOUT}; COMMIT;")
        await connection.execute(CHECKPOINTS)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(
                f"the database {self._path} cannot be used: {error}",
                remedy="free space on its disk, and check that its folder can be written to",
                retry_after=10,
            ) from error


def _opened(connection: aiosqlite.Connection | None) -> aiosqlite.Connection:
    if connection is None:
        raise StoreUnavailable("the store is not open", remedy="try again when the service has started")
    return connection


async def _rolled_back(connection: aiosqlite.Connection) -> None:
    await connection.execute("SELECT 1")  # what was sent before is done now
    if connection.in_transaction:
        await connection.rollback()
