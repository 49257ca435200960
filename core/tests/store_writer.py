"""Writes to a store until it is killed, and prints what the store has acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from locex.store.sqlite_store import SqliteStore
from locex.testing.store_contract import chunks, job, model


async def main():
    store = SqliteStore(Path(sys.argv[1]), sweep_grace=3600)
    await store.open()
    for number in itertools.count():
        await store.put_job(job(f"r{number}"))
        await store.append_event("r", "log", {"n": number})
        blob = await store.write_blob(chunks(number.to_bytes(4, "big") * 75_000), limit=1_000_000)
        await store.put_model(model("m", str(number), digest=blob.digest))
        await store.put_checkpoint("r", chunks(number.to_bytes(4, "big") * 75_000), limit=1_000_000)
        await store.append_ledger("d", "example", number, {"n": number})
        sys.stdout.write(f"{number} {blob.digest}\n")
        sys.stdout.flush()


asyncio.run(main())
