"""Checkpoints of running jobs in the store: a node that loses its state folder goes on with its optimizer state."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import zipfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

from locex.artefacts.archive import MAX_BYTES
from locex.errors import LocexError, StoreUnavailable
from locex.jobs.packing import pack, unpack
from locex.jobs.registry import persist
from locex.store.protocol import Store

log = logging.getLogger(__name__)
_RETRY = 1.0  # seconds between tries while the store is down
_LAST_WRITE = 5.0  # seconds to wait, at the end of the service, for what is not stored yet
_UNREADABLE = (LocexError, OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)


class Checkpoints:
    """Copies what workers keep into the store, of each run the newest, one at a time, delaying nobody.

    Unless ``wanted`` nothing is stored, nor restored.
    """

    def __init__(self, store: Store, *, wanted: bool) -> None:
        self._store = store
        self.wanted = wanted
        self._pending: dict[str, Path | None] = {}  # by run, the folder to copy; None: delete the copy
        self._task: asyncio.Task[None] | None = None

    def keep(self, run_id: str, folder: Path) -> None:
        """Copy the current generation in a run's checkpoint folder, or the one that is current when its turn comes."""
        self._schedule(run_id, folder)

    def drop(self, run_id: str) -> None:
        """Delete the copy of a run that is over."""
        self._schedule(run_id, None)

    async def restore(self, run_id: str, folder: Path) -> int | None:
        """Unpack the copy where the run's folder has no checkpoint; return the round that it is of, if it was."""
        if not self.wanted or await asyncio.to_thread((folder / "current").exists):
            return None
        path = await persist(lambda: self._store.checkpoint_path(run_id))
        if path is None:
            return None
        try:
            return await asyncio.to_thread(unpack, path, folder)
        except _UNREADABLE as error:
            log.warning("the stored checkpoint of run %s cannot be used: %s", run_id, error)
            return None

    async def close(self) -> None:
        """Finish what is under way, if the store takes it soon."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WRITE):
                    await self._task

    def _schedule(self, run_id: str, folder: Path | None) -> None:
        if not self.wanted:
            return
        self._pending[run_id] = folder
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._pending:
            run_id = next(iter(self._pending))
            folder = self._pending.pop(run_id)
            try:
                if folder is None:
                    await self._store.delete_checkpoint(run_id)
                else:
                    await self._store.put_checkpoint(run_id, _packed(folder), limit=MAX_BYTES)
            except StoreUnavailable:
                self._pending.setdefault(run_id, folder)
                await asyncio.sleep(_RETRY)
            except Exception as error:  # noqa: BLE001 -- the job goes on, whatever its plugins wrote there
                if run_id not in self._pending:  # else the run went on, or is over and its folder gone
                    log.warning("the checkpoint of run %s was not stored: %s", run_id, error)


async def _packed(folder: Path) -> AsyncIterator[bytes]:
    packing = pack(folder)
    while chunk := await asyncio.to_thread(next, packing, b""):
        yield chunk
