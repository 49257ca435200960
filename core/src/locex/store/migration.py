"""Everything of one store into another; what is there already is kept, so that it can be run again."""

from __future__ import annotations

import asyncio
import filecmp
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from locex.schemas.model import StoredModel
from locex.schemas.record import JobRecord
from locex.store.files import chunks_of, size_of, write_file
from locex.store.protocol import Store
from locex.store.records import digests_of, dump_job

_PAGE = 500


@dataclass(slots=True)
class Report:
    """What the target now has of the source, and what it could not take."""

    models: int = 0
    jobs: int = 0
    events: int = 0
    ledgers: int = 0
    blobs: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there was nothing to move."""
        return not (self.models or self.jobs or self.ledgers or self.faults)


class Migration:
    """Copies a store; the source stays as it is.

    A record never refers to a blob that is not there: blobs go first, and each is read back from the target. What the
    target has in another, or a newer, form stays, and is a fault.
    """

    def __init__(
        self, source: Store, target: Store, *, datasets: Mapping[str, str], tell: Callable[[str], None]
    ) -> None:
        """``datasets``: new names of data sets, by their names in the source; ``tell`` is given a line of progress."""
        self._source = source
        self._target = target
        self._datasets = datasets
        self._tell = tell
        self.report = Report()

    async def run(self) -> Report:
        """Move models, jobs with their events and checkpoints, ledgers; raise the errors of stores."""
        for model in await self._source.list_models():
            await self._model(model)
        for run_id in await self._runs():
            await self._job(run_id)
        for dataset, unit in await self._source.list_ledgers():
            await self._ledger(dataset, unit)
        return self.report

    async def _model(self, model: StoredModel) -> None:
        what = f"model {model.model_name} {model.model_version}"
        if not await self._blobs(model, what):
            return
        if not await self._target.put_model(model, replace=False):
            known = await self._target.get_model(model.model_name, model.model_version)
            if known is None or known.digest != model.digest:
                self._fault(f"{what}: the target has one of this name with other bytes")
                return
        self.report.models += 1
        self._tell(what)

    async def _runs(self) -> list[str]:
        """Return the runs, oldest first: of those created at once the last put is the newest."""
        found: list[str] = []
        while (page := await self._source.list_jobs(offset=len(found), limit=_PAGE)).records:
            found += [record.run_id for record in page.records]
        return found[::-1]

    async def _job(self, run_id: str) -> None:
        record, known = await self._source.get_job(run_id), await self._target.get_job(run_id)
        assert record is not None
        what = f"run {run_id}"
        if known is not None and known.updated > record.updated:
            self._fault(f"{what}: the target's record is newer")
            return
        if not await self._blobs(record, what):
            return
        after = 0
        while events := await self._source.events(run_id, after=after, limit=_PAGE):
            await self._target.restore_events(events)
            if await self._target.events(run_id, after=after, limit=len(events)) != events:
                self._fault(f"{what}: the target has other events")
                return
            after = events[-1].id
            self.report.events += len(events)
        if not await self._checkpoint(run_id):
            self._fault(f"{what}: the target does not read back its checkpoint")
            return
        await self._target.put_job(record)
        read = await self._target.get_job(run_id)
        if read is None or dump_job(read) != dump_job(record):  # as text, since a loss of NaN does not equal itself
            self._fault(f"{what}: the target reads another record than was written")
            return
        self.report.jobs += 1
        self._tell(what)

    async def _checkpoint(self, run_id: str) -> bool:
        """Move a run's checkpoint, if it has one; tell whether the target reads back the same."""
        path = await self._source.checkpoint_path(run_id)
        if path is None:
            return True
        await self._target.put_checkpoint(run_id, chunks_of(path), limit=await size_of(path))
        read = await self._target.checkpoint_path(run_id)
        self._tell(f"checkpoint of run {run_id}")
        return read is not None and await asyncio.to_thread(filecmp.cmp, path, read, shallow=False)

    async def _ledger(self, dataset: str, unit: str) -> None:
        renamed = self._datasets.get(dataset, dataset)
        what = f"ledger {renamed} ({unit})"
        _, events = await self._source.read_ledger(dataset, unit)
        version, known = await self._target.read_ledger(renamed, unit)
        if known != events[:version] and events != known[: len(events)]:
            self._fault(f"{what}: the target has other charges; move it under a data set's name of its own")
            return
        for at, event in enumerate(events[version:], version):
            if not await self._target.append_ledger(renamed, unit, at, event):
                self._fault(f"{what}: it was charged meanwhile; run this again")
                return
        self.report.ledgers += 1
        self._tell(what)

    async def _blobs(self, record: JobRecord | StoredModel, what: str) -> bool:
        """Move the blobs that a record refers to; tell whether the target has them all."""
        return all([await self._blob(digest, what) for digest in digests_of(record)])

    async def _blob(self, digest: str, what: str) -> bool:
        if digest in self.report.blobs:
            return True
        if not await self._target.check_blob(digest):
            path = await self._source.blob_path(digest)
            if path is None:
                self._fault(f"{what}: the source lacks its bytes {digest}")
                return False
            written = await write_file(self._target, path)
            if written.digest != digest:
                self._fault(f"{what}: its bytes {digest} are damaged in the source")
                return False
            if not await self._target.check_blob(digest):
                self._fault(f"{what}: the target does not read back its bytes {digest}")
                return False
        self.report.blobs.add(digest)
        return True

    def _fault(self, text: str) -> None:
        self.report.faults.append(text)
