"""One service for a node's name: a document that it renews, and that nobody else may take meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import Any

from pymongo.errors import DuplicateKeyError

from locex.errors import StoreUnavailable
from locex_mongo_store.driver import Deployment
from locex_mongo_store.identity import Identity

log = logging.getLogger(__name__)
_RELEASE = 3.0  # seconds that the end of a service waits for the database


class Lease:
    """Held from `acquire` to `release`, or until it was not renewed for ``seconds``. All times are the server's."""

    def __init__(self, deployment: Deployment, identity: Identity, seconds: float) -> None:
        self._deployment = deployment
        self._identity = identity
        self._seconds = seconds
        self._holder = secrets.token_hex(8)
        self._renewing: asyncio.Task[None] | None = None

    async def acquire(self) -> None:
        """Take the name; raise `StoreUnavailable` naming who has it.

        The same state folder may take it at once: its lock says that the former service is dead.
        """
        nodes = self._deployment.collection("nodes")
        mine = {"token": self._identity.token, "process": self._identity.process, "holder": self._holder}
        with self._deployment.faults():
            with contextlib.suppress(DuplicateKeyError):
                await nodes.insert_one({"_id": self._identity.name})
            free = [{"holder": None}, {"token": self._identity.token}, {"$expr": self._silent()}]
            taken = await nodes.update_one(
                {"_id": self._identity.name, "$or": free}, {"$set": mine, "$currentDate": {"seen": True}}
            )
            if not taken.matched_count:
                other = await nodes.find_one({"_id": self._identity.name}) or {}
                raise StoreUnavailable(
                    f"the node {self._identity.name} of the database {self._deployment.where} is in use by the process"
                    f" {other.get('process', 'unknown')}",
                    remedy=f"stop that service, give this one another LOCEX_NODE, or wait {self._seconds:g} s if it is"
                    " dead",
                )
        self._renewing = asyncio.create_task(self._renew())

    async def release(self) -> None:
        """Give the name up, if the database can be reached."""
        if self._renewing is None:
            return
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        self._renewing = None
        with contextlib.suppress(StoreUnavailable, TimeoutError), self._deployment.faults():
            async with asyncio.timeout(_RELEASE):
                await self._deployment.collection("nodes").update_one(
                    {"_id": self._identity.name, "holder": self._holder}, {"$set": {"holder": None}}
                )

    async def _renew(self) -> None:
        nodes = self._deployment.collection("nodes")
        while True:
            await asyncio.sleep(self._seconds / 3)
            with contextlib.suppress(StoreUnavailable), self._deployment.faults():
                kept = await nodes.update_one(
                    {"_id": self._identity.name, "holder": self._holder}, {"$currentDate": {"seen": True}}
                )
                if not kept.matched_count:
                    self._deployment.fenced = f"another service took over the node {self._identity.name}"
                    log.error("%s; this one writes no more", self._deployment.fenced)
                    return

    def _silent(self) -> dict[str, Any]:
        return {"$lt": ["$seen", {"$subtract": ["$$NOW", int(self._seconds * 1000)]}]}
