"""The records of trainings: every change is persisted, and told as an event of the run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from locex.errors import UnknownJob
from locex.jobs.registry import persist
from locex.schemas.record import Failure, FailureKind, JobEvent, JobRecord, JobState, RoundRecord
from locex.store.protocol import Store

_PAGE = 1000


class Records:
    """Reads and changes records of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, record: JobRecord) -> None:
        """Persist a new run; raise `StoreUnavailable` rather than wait, since nobody relies on the run yet."""
        await self._store.save_job(record, "state", {"state": record.state.value})

    async def save(self, record: JobRecord, kind: str, content: Mapping[str, Any], **changes: Any) -> JobRecord:
        """Persist changes of a record with the event that tells of them; return the new record.

        Wait for a store that is down.
        """
        changed = record.model_copy(update={**changes, "updated": time.time()})
        await persist(lambda: self._store.save_job(changed, kind, content))
        return changed

    async def enter(self, record: JobRecord, state: JobState, *, reason: str = "", **changes: Any) -> JobRecord:
        """Change a record's state."""
        content = {"state": state.value} | ({"reason": reason} if reason else {})
        if state.over:
            changes |= {"ended": time.time(), "worker": None}
        return await self.save(record, "state", content, state=state, **changes)

    async def add_round(self, record: JobRecord, report: Mapping[str, Any]) -> JobRecord:
        """Add a round; the event keeps participants and failures, which a record has no place for."""
        fields = {key: value for key, value in report.items() if key in RoundRecord.model_fields}
        history = [*record.history, RoundRecord.model_validate(fields)]
        return await self.save(record, "round", dict(report), history=history, round=report["round"])

    async def latest(self, training_id: str) -> JobRecord:
        """Return the newest run of a training; raise `UnknownJob`."""
        record = await self._store.latest_job(training_id)
        if record is None:
            raise UnknownJob(training_id)
        return record

    async def is_over(self, run_id: str) -> bool:
        """Tell whether a run's record says that it is over."""
        record = await self._store.get_job(run_id)
        return record is not None and record.state.over

    async def unfinished(self) -> list[JobRecord]:
        """Return the runs that are not over, newest first."""
        states = [state for state in JobState if not state.over]
        return (await self._store.list_jobs(states=states, limit=_PAGE)).records

    async def events(self, run_id: str, kinds: set[str]) -> list[JobEvent]:
        """Return all events of these kinds."""
        found: list[JobEvent] = []
        after = 0
        while page := await self._store.events(run_id, after=after, limit=_PAGE):
            found += [event for event in page if event.kind in kinds]
            after = page[-1].id
        return found


def failure_of(error: Mapping[str, Any]) -> Failure:
    """Return a record's failure from an error as JSON."""
    lost = error.get("code") == "federation-lost"
    return Failure(
        kind=FailureKind.FEDERATION_LOST if lost else FailureKind.RAISED,
        code=str(error.get("code", "internal")),
        message=str(error.get("message", "")),
        remedy=str(error.get("remedy", "")),
    )


def crash_of(exit_code: int, log: str, restarts: int) -> Failure:
    """Return the failure of a training whose process died too often."""
    return Failure(
        kind=FailureKind.CRASHED,
        code="training-crashed",
        message=f"the training's process ended with exit code {exit_code}, after {restarts} restarts",
        remedy="see the log; post the training again when the cause is gone",
        exit_code=exit_code,
        log=log,
    )
