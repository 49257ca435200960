"""Local files as what a store takes: chunks, read in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from locex.store.protocol import Blob, Store

_CHUNK = 1 << 20


async def write_file(store: Store, path: Path) -> Blob:
    """Store a file's bytes as a blob."""
    return await store.write_blob(chunks_of(path), limit=await size_of(path))


async def size_of(path: Path) -> int:
    """Return a file's size in bytes."""
    return (await asyncio.to_thread(path.stat)).st_size


async def chunks_of(path: Path) -> AsyncIterator[bytes]:
    """Yield a file's bytes."""
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
