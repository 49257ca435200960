"""The connection to a deployment of MongoDB: the only module that imports motor."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from bson.errors import BSONError
from motor.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorDatabase,
    AsyncIOMotorGridFSBucket,
)
from pymongo import WriteConcern
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.uri_parser import parse_uri

from locex.errors import InvalidConfiguration, StoreUnavailable
from locex_mongo_store.faults import DUPLICATE, reason_of
from locex_mongo_store.options import MongoConfig

Document = dict[str, Any]
Session = AsyncIOMotorClientSession | None
Collection = AsyncIOMotorCollection[Document]

DATABASE = "locex"
BLOBS, CHECKPOINTS = "blobs", "checkpoints"
"""The buckets."""
CHUNK = 1 << 20
"""Bytes of one GridFS chunk."""

DURABLE = WriteConcern("majority", j=True)
SETTLED = ReadConcern("majority")

ResultT = TypeVar("ResultT")


class Deployment:
    """A database and what its faults mean. Writes are durable on a majority; reads see nothing that can vanish."""

    def __init__(self, url: str, config: MongoConfig) -> None:
        """Raise `InvalidConfiguration` for a URL that cannot be used; its text is never repeated."""
        self._url = url
        self._config = config
        self._client: AsyncIOMotorClient[Document] | None = None
        self._database: AsyncIOMotorDatabase[Document] | None = None
        self._transactions = False
        self.fenced = ""
        """Why this process must not use the database any more; empty while it may."""
        self.name = config.database or DATABASE
        self.where = "MongoDB"
        if not url.startswith("mongodb+srv:"):  # that is looked up in the DNS, when the store is opened
            self._parse()

    async def open(self) -> None:
        """Connect; raise `StoreUnavailable`."""
        logging.getLogger("pymongo").setLevel(logging.INFO)  # below, it logs every record
        defaults: Document = {
            "appName": "locex",
            "serverSelectionTimeoutMS": int(self._config.selection_timeout * 1000),
            "connectTimeoutMS": int(self._config.timeout * 1000),
            "socketTimeoutMS": int(self._config.timeout * 1000),
        }
        given = self._parse()
        with _refused_urls():
            client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(
                self._url, **{name: value for name, value in defaults.items() if name not in given}
            )
        self._client = client
        self._database = client.get_database(
            self.name, write_concern=DURABLE, read_concern=SETTLED, read_preference=ReadPreference.PRIMARY
        )
        with self.faults():
            hello = await client.admin.command("hello")
            await self._database.command("ping")
        self._transactions = "setName" in hello or hello.get("msg") == "isdbgrid"

    async def close(self) -> None:
        """Release the connections."""
        client, self._client, self._database = self._client, None, None
        if client is not None:
            await asyncio.to_thread(client.close)  # it tells the server, and waits for its answer

    def collection(self, name: str) -> Collection:
        """Return a collection; raise `StoreUnavailable` while the store is not open."""
        return self._opened()[name]

    def bucket(self, name: str) -> AsyncIOMotorGridFSBucket:
        """Return a GridFS bucket."""
        return AsyncIOMotorGridFSBucket(self._opened(), bucket_name=name, chunk_size_bytes=CHUNK)

    async def together(self, work: Callable[[Session], Awaitable[ResultT]]) -> ResultT:
        """Run ``work`` in a transaction, again where it met another's; without one on a standalone server.

        What the driver raises passes through: `faults` is for the caller to apply.
        """
        if not self._transactions or self._client is None:
            return await work(None)
        until = time.monotonic() + self._config.timeout
        while True:
            try:
                async with (
                    await self._client.start_session() as session,
                    session.start_transaction(ReadConcern("snapshot"), DURABLE),
                ):
                    return await work(session)
            except OperationFailure as error:
                met = error.has_error_label("TransientTransactionError") and error.code != DUPLICATE
                if not met or time.monotonic() > until:
                    raise

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Raise the driver's errors as ours. Its texts stay out: they may quote records, or parts of the URL."""
        if self.fenced:
            raise StoreUnavailable(self.fenced, remedy="give each service a LOCEX_NODE of its own")
        try:
            yield
        except (PyMongoError, BSONError) as error:
            raise reason_of(error, self.where) from None

    def _opened(self) -> AsyncIOMotorDatabase[Document]:
        if self._database is None:
            raise StoreUnavailable("the store is not open", remedy="try again when the service has started")
        return self._database

    def _parse(self) -> Document:
        """Return the URL's options; learn where the database is."""
        with _refused_urls():
            parsed = parse_uri(self._url)
        self.name = self._config.database or parsed["database"] or DATABASE
        hosts = ",".join(f"{host}:{port}" if port else host for host, port in parsed["nodelist"])
        self.where = f"{self.name} at {hosts}"
        return dict(parsed["options"])


@contextmanager
def _refused_urls() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of TLS
        raise InvalidConfiguration(
            f"a TLS file that the store's URL names cannot be used: {error.strerror or type(error).__name__}",
            remedy="check tlsCAFile and tlsCertificateKeyFile, and who may read them",
        ) from None
    except (PyMongoError, ValueError, TypeError) as error:
        raise InvalidConfiguration(
            f"the store's URL is none of a MongoDB ({type(error).__name__})",
            remedy="write mongodb://USER:PASSWORD@HOST:PORT/DATABASE?OPTIONS, with user and password percent-encoded",
        ) from None
