"""Collections and their indexes, and the version of the whole."""

from __future__ import annotations

from pymongo import ASCENDING, DESCENDING

from locex.errors import StoreUnavailable
from locex_mongo_store.driver import BLOBS, CHECKPOINTS, Deployment

LAYOUT = 1

NEWEST_FIRST = [("created", DESCENDING), ("order", DESCENDING)]
"""How jobs are sorted, and so the end of each of their indexes."""

_UNIQUE = {
    "events": [("run", ASCENDING), ("id", ASCENDING)],
    "models": [("name", ASCENDING), ("version", ASCENDING)],
    "ledgers": [("dataset", ASCENDING), ("unit", ASCENDING), ("version", ASCENDING)],
} | {
    name: keys
    for bucket in (BLOBS, CHECKPOINTS)
    for name, keys in (
        (f"{bucket}.files", [("filename", ASCENDING)]),
        (f"{bucket}.chunks", [("files_id", ASCENDING), ("n", ASCENDING)]),
    )
}


async def prepare(deployment: Deployment) -> None:
    """Make what a new database lacks; raise `StoreUnavailable` for a newer layout."""
    with deployment.faults():
        meta = deployment.collection("meta")
        await meta.update_one({"_id": "layout"}, {"$setOnInsert": {"version": LAYOUT}}, upsert=True)
        known = await meta.find_one({"_id": "layout"})
        if known is not None and known["version"] > LAYOUT:
            raise StoreUnavailable(
                f"the database {deployment.where} has layout {known['version']}, this plugin knows up to {LAYOUT}",
                remedy="upgrade locex-mongo-store to the version that wrote it, or name another database",
            )
        for name, keys in _UNIQUE.items():
            await deployment.collection(name).create_index(keys, unique=True)
        jobs = deployment.collection("jobs")
        for first in ("training_id", "state"):
            await jobs.create_index([("node", ASCENDING), (first, ASCENDING), *NEWEST_FIRST])
        await jobs.create_index([("node", ASCENDING), *NEWEST_FIRST])
