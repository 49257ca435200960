"""Events of runs: numbered without gaps, each written once however often it is asked for after a lost answer."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bson import ObjectId
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import BulkWriteError, DuplicateKeyError

from locex.errors import StoreUnavailable
from locex.schemas.record import JobEvent
from locex_mongo_store.driver import Deployment, Document, Session
from locex_mongo_store.faults import DUPLICATE


class Events:
    """The collection ``events``."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._unanswered: dict[tuple[str, str, str], Document] = {}

    async def append(
        self,
        run_id: str,
        kind: str,
        content: Mapping[str, Any],
        before: Callable[[Session], Awaitable[object]] | None = None,
    ) -> JobEvent:
        """Append an event, together with the write ``before`` it.

        Whether a write whose answer was lost was done is not known. Its `_id` is kept, so that asking again for the
        same event finds the one that was written.
        """
        key = (run_id, kind, json.dumps(dict(content)))
        event = self._unanswered.pop(key, None) or {
            "_id": ObjectId(),
            "run": run_id,
            "time": time.time(),
            "kind": kind,
            "content": key[2],
        }
        try:
            with self._deployment.faults():
                return _event(await self._numbered(event, before))
        except StoreUnavailable:
            self._unanswered[key] = event
            raise

    async def restore(self, events: Sequence[JobEvent]) -> None:
        """Insert events as they are; those that are there stay."""
        rows = [
            {"run": one.run_id, "id": one.id, "time": one.time, "kind": one.kind, "content": json.dumps(one.content)}
            for one in events
        ]
        with self._deployment.faults():
            try:
                if rows:
                    await self._deployment.collection("events").insert_many(rows, ordered=False)
            except BulkWriteError as error:
                if any(one["code"] != DUPLICATE for one in error.details["writeErrors"]):
                    raise

    async def read(self, run_id: str, *, after: int, limit: int) -> list[JobEvent]:
        """Return a run's events after an id, in order."""
        with self._deployment.faults():
            found = self._deployment.collection("events").find({"run": run_id, "id": {"$gt": after}})
            return [_event(row) for row in await found.sort("id", ASCENDING).limit(limit).to_list(None)]

    async def _numbered(self, event: Document, before: Callable[[Session], Awaitable[object]] | None) -> Document:
        events = self._deployment.collection("events")

        async def insert(session: Session) -> Document:
            if before is not None:
                await before(session)
            last = await events.find_one({"run": event["run"]}, sort=[("id", DESCENDING)], session=session)
            numbered = event | {"id": last["id"] + 1 if last else 1}
            await events.insert_one(numbered, session=session)
            return numbered

        while True:
            try:
                return await (insert(None) if before is None else self._deployment.together(insert))
            except DuplicateKeyError:  # the number is another's, or the event is there
                known = await events.find_one({"_id": event["_id"]})
                if known is not None:
                    return known


def _event(row: Mapping[str, Any]) -> JobEvent:
    return JobEvent(
        id=row["id"], run_id=row["run"], time=row["time"], kind=row["kind"], content=json.loads(row["content"])
    )
