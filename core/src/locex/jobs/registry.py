"""The records of jobs: every change is persisted before it is announced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from locex.errors import StoreUnavailable, UnknownJob
from locex.jobs.states import check
from locex.schemas.record import JobEvent, JobRecord, JobState
from locex.store.protocol import Store

log = logging.getLogger(__name__)
_RETRY = 1.0  # seconds between tries while the store is down

ResultT = TypeVar("ResultT")


class Registry:
    """Reads and changes records; announces changes to whoever follows a run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._unannounced: Counter[str] = Counter()
        self._withdrawing: set[asyncio.Task[None]] = set()
        self._live: dict[str, JobRecord] = {}

    async def create(self, record: JobRecord) -> None:
        """Persist a new run, or raise `StoreUnavailable`; then the run will not be there."""
        try:
            await self._store.save_job(record, "state", {"state": record.state.value})
            self._note(record)
        except StoreUnavailable:
            task = asyncio.create_task(self._withdraw(record.run_id))
            self._withdrawing.add(task)
            task.add_done_callback(self._withdrawing.discard)
            raise

    async def close(self) -> None:
        """Give up what waits for the store on nobody's behalf."""
        for task in self._withdrawing:
            task.cancel()
        await asyncio.gather(*self._withdrawing, return_exceptions=True)

    def live(self) -> list[JobRecord]:
        """Return the runs of this process that are not over, as they were last persisted."""
        return list(self._live.values())

    async def latest(self, training_id: str) -> JobRecord:
        """Return the newest run of a training; raise `UnknownJob`."""
        record = await self._store.latest_job(training_id)
        if record is None:
            raise UnknownJob(training_id)
        return record

    async def get(self, run_id: str) -> JobRecord:
        """Return a run that is known to exist; wait for a store that is down."""
        record = await persist(lambda: self._store.get_job(run_id))
        assert record is not None
        return record

    async def enter(self, run_id: str, state: JobState, *, reason: str = "", **changes: Any) -> JobRecord:
        """Change a run's state, as the table allows, together with other fields of its record."""
        record = await self.get(run_id)
        if state is not record.state:
            check(record.state, state)
        content = {"state": state.value} | ({"reason": reason} if reason else {})
        if state.over:
            changes.setdefault("ended", time.time())
        return await self._save(record, "state", content, state=state, **changes)

    async def change(self, run_id: str, kind: str, content: Mapping[str, Any], **changes: Any) -> JobRecord:
        """Change fields of a run's record and announce why."""
        return await self._save(await self.get(run_id), kind, content, **changes)

    async def claim(self, run_id: str) -> bool:
        """Take a queued run to configure it; False if another did, or it was stopped meanwhile."""
        record = await self.get(run_id)
        claimed = record.model_copy(update={"state": JobState.CONFIGURING, "updated": time.time()})
        if not await persist(lambda: self._store.claim_job(run_id, JobState.QUEUED, claimed)):
            return False
        self._note(claimed)
        content = {"state": JobState.CONFIGURING.value}
        await persist(lambda: self._store.append_event(run_id, "state", content))
        self._wake(run_id)
        return True

    async def follow(self, run_id: str, *, after: int = 0) -> AsyncGenerator[JobEvent]:
        """Yield a run's events after an id, as they happen, until the run is over."""
        while True:
            changed = self._changed[run_id]
            # Before the events are read: the last one is written after the record that says the run is over.
            over = (await self.get(run_id)).state.over and not self._unannounced[run_id]
            events = await self._store.events(run_id, after=after)
            for event in events:
                after = event.id
                yield event
            if events:
                continue
            if over:
                return
            await changed.wait()

    async def _save(self, record: JobRecord, kind: str, content: Mapping[str, Any], **changes: Any) -> JobRecord:
        changed = record.model_copy(update={**changes, "updated": time.time()})
        self._unannounced[record.run_id] += 1
        try:
            await persist(lambda: self._store.save_job(changed, kind, content))
            self._note(changed)
            self._wake(record.run_id)
        finally:
            self._unannounced[record.run_id] -= 1
        return changed

    def _note(self, record: JobRecord) -> None:
        self._live[record.run_id] = record
        if record.state.over:
            del self._live[record.run_id]

    def _wake(self, run_id: str) -> None:
        event = self._changed.pop(run_id, None)
        if event is not None:
            event.set()

    async def _withdraw(self, run_id: str) -> None:
        """End a run that its caller was refused, in case only the store's answer was lost."""
        if await persist(lambda: self._store.get_job(run_id)) is not None:
            await self.enter(run_id, JobState.STOPPED, reason="the store was lost while the job was posted")


async def persist(write: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Write, and while the store is down try again: a running job's state is written when it is back."""
    while True:
        with contextlib.suppress(StoreUnavailable):
            return await write()
        log.warning("the store is unavailable; trying again in %g s", _RETRY)
        await asyncio.sleep(_RETRY)
