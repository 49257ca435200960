"""Bytes in files named by their sha256: ``blobs/ab/abcdef…``, written whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from locex.durable import sync
from locex.errors import StoreUnavailable, TooLarge
from locex.store.protocol import Blob
from locex.store.records import DIGEST

BATCH = 1 << 20
"""Bytes handed to a thread at once: small chunks would cost more in hand-offs than in writing."""


class BlobFolder:
    """Content-addressed files in a folder. File work happens in threads.

    ``grace``: seconds for which an unreferenced blob is kept, since its reference is written after it.
    """

    def __init__(self, folder: Path, *, grace: float) -> None:
        self._folder = folder
        self._temporary = folder / "tmp"
        self._grace = grace
        self._writing: set[Path] = set()
        self._placing = threading.Lock()

    async def open(self) -> None:
        """Make the folders."""
        with self._faults():
            await asyncio.to_thread(self._make_folders)

    async def write(self, chunks: AsyncIterator[bytes], *, limit: int) -> Blob:
        """Store bytes; raise `TooLarge` beyond ``limit``, `StoreUnavailable` when the disk is full."""
        path = self._temporary / secrets.token_hex(16)
        self._writing.add(path)
        try:
            with self._faults():
                writer = _Writer(path)
            try:
                async for batch in _batches(chunks, limit):
                    with self._faults():
                        await asyncio.to_thread(writer.write, batch)
                with self._faults():
                    return await asyncio.to_thread(self._place, writer)
            finally:
                writer.discard()
        finally:
            self._writing.discard(path)

    async def path(self, digest: str) -> Path | None:
        """Return the file of a digest."""
        if not DIGEST.fullmatch(digest):
            return None
        path = self._path(digest)
        return path if await asyncio.to_thread(path.is_file) else None

    async def check(self, digest: str) -> bool:
        """Tell whether the file of a digest is there and has it."""
        path = await self.path(digest)
        with self._faults():
            return path is not None and await asyncio.to_thread(_digest_of, path) == digest

    async def sweep(self, referenced: Collection[str]) -> int:
        """Delete old blobs that are not referenced, and old temporary files that nobody writes; return how many."""
        with self._faults():
            return await asyncio.to_thread(self._sweep, referenced)

    async def discard(self, digest: str) -> None:
        """Delete a blob to which nothing refers any more, and which nobody writes again at this moment."""
        with self._faults():
            await asyncio.to_thread(self._path(digest).unlink, missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def _make_folders(self) -> None:
        self._temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)

    def _place(self, writer: _Writer) -> Blob:
        blob = writer.finish()
        target = self._path(blob.digest)
        with self._placing:
            if not target.parent.exists():
                target.parent.mkdir(mode=0o700)
                sync(self._folder)
            # Also over an equal file: its new time keeps a sweep from taking it before it is referenced.
            writer.path.replace(target)
        sync(target.parent)
        return blob

    def _sweep(self, referenced: Collection[str]) -> int:
        before = time.time() - self._grace
        swept = 0
        for path in [*self._folder.glob("??/*"), *self._temporary.iterdir()]:
            if path.name in referenced or path in self._writing:
                continue
            with self._placing, suppress(FileNotFoundError):
                if path.stat().st_mtime <= before:
                    path.unlink()
                    swept += 1
        return swept

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(
                f"the folder {self._folder} cannot be used: {error.strerror}",
                remedy="free space on its disk, and check that it can be written to",
                retry_after=10,
            ) from error


class _Writer:
    """A temporary file being written. Its lock makes `discard` wait for a thread that a cancelled task left behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)
        self._hash = hashlib.sha256()
        self._size = 0
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            self._hash.update(data)
            self._size += len(data)

    def finish(self) -> Blob:
        with self._lock:
            os.fsync(self._file.fileno())
            self._file.close()
            return Blob(digest=self._hash.hexdigest(), size=self._size)

    def discard(self) -> None:
        with self._lock:
            self._file.close()
            self.path.unlink(missing_ok=True)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _batches(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    pending = bytearray()
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise TooLarge(f"more than {limit} bytes arrived", remedy="send less, or raise the bound of the service")
        pending += chunk
        if len(pending) >= BATCH:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)
