"""Privacy ledgers: one document an event, whose unique number decides between those who charge at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from locex_mongo_store.driver import Deployment


class Ledgers:
    """The collection ``ledgers``. The nodes that share the database share it: the data set's name tells them apart."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    async def read(self, dataset: str, unit: str) -> tuple[int, list[dict[str, Any]]]:
        """Return a ledger's version (0: empty) and its events."""
        with self._deployment.faults():
            found = self._deployment.collection("ledgers").find({"dataset": dataset, "unit": unit})
            rows = await found.sort("version", ASCENDING).to_list(None)
        return (rows[-1]["version"] if rows else 0), [json.loads(row["event"]) for row in rows]

    async def append(self, dataset: str, unit: str, version: int, event: Mapping[str, Any]) -> bool:
        """Append an event if the version is still current; tell whether it was.

        Numbers have no gaps and events are never deleted, so that of two inserts with the next number one fails.
        """
        ledgers = self._deployment.collection("ledgers")
        ledger = {"dataset": dataset, "unit": unit}
        with self._deployment.faults():
            if version and await ledgers.find_one({**ledger, "version": version}, {"_id": 1}) is None:
                return False
            try:
                await ledgers.insert_one({**ledger, "version": version + 1, "event": json.dumps(dict(event))})
            except DuplicateKeyError:
                return False
        return True

    async def names(self) -> list[tuple[str, str]]:
        """Return data set and unit of every ledger, in order."""
        with self._deployment.faults():
            found = self._deployment.collection("ledgers").find({"version": 1}, {"dataset": 1, "unit": 1})
            return sorted([(row["dataset"], row["unit"]) for row in await found.to_list(None)])
