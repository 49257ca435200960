"""Jobs as callers see them: submitted, watched, stopped; queued and run; taken up again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from locex.errors import ActiveJob, InvalidConfiguration, LocexError, QueueFull
from locex.jobs.checkpoints import Checkpoints
from locex.jobs.choices import choices_of, find
from locex.jobs.messages import Configured
from locex.jobs.policy import counts_examples, policy_of, require_examples, require_kept
from locex.jobs.registry import Registry
from locex.jobs.repository import Models
from locex.jobs.run import Run
from locex.jobs.servers import check_server
from locex.jobs.site import bypass, fill_in
from locex.jobs.states import ACTIVE
from locex.jobs.workers import Spare, Worker
from locex.plugins.catalog import Catalog
from locex.plugins.installed import Installed
from locex.processes.child import reap
from locex.schemas.job import DataChoice, JobConfiguration, parse_job
from locex.schemas.model import Name
from locex.schemas.record import Failure, FailureKind, JobEvent, JobRecord, JobState
from locex.settings import NodeSettings
from locex.store.protocol import Page, Store

log = logging.getLogger(__name__)
_RETRY_AFTER = 30.0  # seconds; a full queue moves when a job ends, which takes minutes rather than seconds
_LAST_WRITE = 5.0  # seconds to wait for the store at the end of the service
_PAGE = 1000
_TRAINING_ID: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a job that was taken: its record, the normalised configuration in it, and warnings."""

    record: JobRecord
    warnings: list[str]


class JobService:
    """The jobs of a node. Call `start` before anything else and `close` at the end."""

    def __init__(
        self,
        settings: NodeSettings,
        store: Store,
        installed: Installed,
        count_examples: Callable[[DataChoice, int], Awaitable[int]] | None = None,
    ) -> None:
        """``count_examples`` tells, for the site's policy, how many training examples a source with a seed has."""
        self._settings = settings
        self._count_examples = count_examples
        self._store = store
        self._installed = installed
        self._registry = Registry(store)
        self.models = Models(store, settings.repository_address, max_bytes=settings.max_model_mb * 2**20)
        self._checkpoints = Checkpoints(store, wanted=settings.checkpoints == "store")
        self._spare = Spare(settings)
        self._configuring: set[str] = set()
        self._waiting: deque[str] = deque()
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up the jobs that a former service left, and start the spare worker."""
        await self._recover()
        self._spare.prepare((await self._installed.catalog()).fingerprint)

    async def close(self) -> None:
        """Interrupt what runs, so that the next start goes on with it."""
        self._waiting.clear()
        runs, tasks = list(self._runs.values()), list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for run in runs:
            await run.abandon()
            with contextlib.suppress(TimeoutError):  # with the store down, the next start finds the run as it was
                async with asyncio.timeout(_LAST_WRITE):
                    if not (await self._registry.get(run.run_id)).state.over:
                        await run.keep_checkpoint()  # its round may have ended at this moment, untold
                        await self._registry.enter(run.run_id, JobState.INTERRUPTED, reason="the service was stopped")
        await self._checkpoints.close()
        await self._registry.close()
        await self._spare.close()

    # --- what callers ask ---------------------------------------------------------------------------------------------

    async def submit(self, training_id: str, content: dict[str, Any]) -> Accepted:
        """Take a job, or raise what is wrong with it; see docs/errors.md for every code."""
        job, warnings = parse_job(content)
        job = _with_training_id(job, training_id)
        job, defaults = fill_in(job, self._settings)
        await check_server(job.server_address, self._settings.allowed_servers)
        metadata = await self.models.metadata(job.model_name, job.model_version)
        library = metadata.meta.library
        job, bypassed = bypass(job, library, self._settings)
        await self._require_new_version(job)
        catalog = await self._installed.catalog()
        for choice in choices_of(job, library, self._settings):
            if choice.role != "warmup_scheduler":  # only its builder knows whether it warms up at all
                find(catalog, choice, library)
        with self._admission(training_id):
            await self._require_inactive(training_id)
            worker, configured = await self._configured_worker(catalog, job, library)
            record = _new_record(
                training_id, configured, library, [*warnings, *defaults, *bypassed, *configured.warnings]
            )
            async with worker.ended_unless_done():
                await self._require_policy(configured.job)
                await self._registry.create(record)
        await self._enqueue(record.run_id, worker)
        return Accepted(record, record.warnings)

    async def stop(self, training_id: str) -> JobRecord:
        """Stop a job that is not over; one that is over stays as it is."""
        record = await self._registry.latest(training_id)
        if record.state.over:
            return record
        run = self._runs.get(record.run_id)
        if run is None:
            if record.run_id in self._waiting:
                self._waiting.remove(record.run_id)
            record = await self._registry.enter(record.run_id, JobState.STOPPED)
            self._checkpoints.drop(record.run_id)
            return record
        task = self._tasks[record.run_id]
        await run.stop()
        await asyncio.wait([task])
        return await self._registry.get(record.run_id)

    def live(self) -> list[JobRecord]:
        """Return the runs of this process that are not over, without asking the store."""
        return self._registry.live()

    async def latest(self, training_id: str) -> JobRecord:
        """Return the newest run of a training; raise `UnknownJob`."""
        return await self._registry.latest(training_id)

    async def page(
        self, *, states: tuple[JobState, ...] = (), training_id: str | None = None, offset: int = 0, limit: int = 100
    ) -> Page:
        """Return runs, newest first."""
        return await self._store.list_jobs(states=states, training_id=training_id, offset=offset, limit=limit)

    async def active(self) -> list[JobRecord]:
        """Return the runs that are not over."""
        return (await self._store.list_jobs(states=ACTIVE, limit=_PAGE)).records

    @property
    def running(self) -> int:
        """How many runs have a worker, or are about to."""
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """How many runs are in the queue."""
        return len(self._waiting)

    def follow(self, run_id: str, *, after: int = 0) -> AsyncGenerator[JobEvent]:
        """Yield a run's events after an id, as they happen, until the run is over."""
        return self._registry.follow(run_id, after=after)

    # --- admission and queue ------------------------------------------------------------------------------------------

    @contextmanager
    def _admission(self, training_id: str) -> Iterator[None]:
        """Hold a place for a job while it is configured."""
        if training_id in self._configuring:
            raise ActiveJob(training_id, JobState.CONFIGURING.value)
        free = self._settings.max_jobs - len(self._tasks)
        if len(self._configuring) + len(self._waiting) - max(free, 0) >= self._settings.queue_limit:
            raise QueueFull(self._settings.queue_limit, _RETRY_AFTER)
        self._configuring.add(training_id)
        try:
            yield
        finally:
            self._configuring.discard(training_id)

    async def _require_inactive(self, training_id: str) -> None:
        known = await self._store.latest_job(training_id)
        if known is not None and not known.state.over:
            raise ActiveJob(training_id, known.state.value)

    async def _require_new_version(self, job: JobConfiguration) -> None:
        version = job.export.model_version
        if version is not None and await self._store.get_model(job.model_name, version) is not None:
            fault = {"path": "/export/model_version", "message": f"{job.model_name} has a version {version!r} already"}
            raise InvalidConfiguration(fault["message"], remedy="name a version that is not there yet", errors=[fault])

    async def _require_policy(self, job: JobConfiguration) -> None:
        """Raise `PolicyRefused`; a number of examples that nobody counts here is checked when they are loaded."""
        policy, dataset = await asyncio.to_thread(policy_of, self._settings), self._settings.dataset
        require_kept(job, policy, dataset)
        if self._count_examples is None or job.data is None:
            return
        if counts_examples(policy, dataset):
            require_examples(await self._count_examples(job.data, job.seed or 0), policy, dataset)

    async def _configured_worker(
        self, catalog: Catalog, job: JobConfiguration, library: str
    ) -> tuple[Worker, Configured]:
        worker = await self._spare.take(catalog.fingerprint)
        names = ", ".join(f"{choice.kind} {choice.name}" for choice in choices_of(job, library, self._settings))
        try:
            patience = self._settings.plugin_timeout
            return worker, await worker.configure(job, library, patience=patience, names=names)
        finally:
            self._spare.prepare(catalog.fingerprint)

    async def _enqueue(self, run_id: str, worker: Worker | None = None) -> None:
        if len(self._tasks) < self._settings.max_jobs:
            self._launch(run_id, worker)
            return
        self._waiting.append(run_id)
        if worker is not None:
            await worker.end()

    def _launch(self, run_id: str, worker: Worker | None) -> None:
        run = Run(
            run_id,
            worker,
            settings=self._settings,
            store=self._store,
            registry=self._registry,
            models=self.models,
            checkpoints=self._checkpoints,
            start_worker=self._start_worker,
        )
        self._runs[run_id] = run
        task = asyncio.create_task(run.go(), name=f"run {run_id}")
        self._tasks[run_id] = task
        task.add_done_callback(lambda done: self._ended(run_id, done))

    def _ended(self, run_id: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("run %s ended with a fault of the service", run_id, exc_info=error)
        self._runs.pop(run_id, None)
        self._tasks.pop(run_id, None)
        while self._waiting and len(self._tasks) < self._settings.max_jobs:
            self._launch(self._waiting.popleft(), None)

    async def _start_worker(self, record: JobRecord) -> Worker:
        """Return a worker that configured a job which was taken before."""
        job = JobConfiguration.model_validate(record.configuration)
        worker, configured = await self._configured_worker(await self._installed.catalog(), job, record.library)
        changed = [
            f"{name} {record.plugins.get(name, 'absent')} then, {configured.plugins.get(name, 'absent')} now"
            for name in sorted(record.plugins.keys() | configured.plugins.keys())
            if record.plugins.get(name) != configured.plugins.get(name)
        ]
        if changed and record.resumes:
            await worker.end()
            raise LocexError(
                f"the job cannot go on with other plugins than it ran with: {'; '.join(changed)}",
                code="plugin-changed",
                remedy="install the versions it ran with, or post the job again",
            )
        if changed:
            content = {"text": f"plugins changed while the job waited: {'; '.join(changed)}"}
            await self._registry.change(record.run_id, "warning", content, plugins=configured.plugins)
        async with worker.ended_unless_done():
            await self._require_policy(configured.job)  # which may have changed while the job waited
        return worker

    async def _recover(self) -> None:
        for record in reversed(await self.active()):  # oldest first
            if record.worker:
                reap(record.worker["pid"], record.worker["identity"])
            state = record.state
            if state not in {JobState.QUEUED, JobState.INTERRUPTED}:
                state, deaths = JobState.INTERRUPTED, record.deaths + 1
                await self._registry.enter(record.run_id, state, reason="the service ended", deaths=deaths)
                if deaths > self._settings.max_resumes:
                    await self._registry.enter(record.run_id, JobState.FAILED, failure=_given_up(deaths))
                    self._checkpoints.drop(record.run_id)
                    continue
            if not self._settings.resume:
                continue
            if state is JobState.INTERRUPTED:
                await self._registry.enter(record.run_id, JobState.QUEUED, resumes=record.resumes + 1)
            await self._enqueue(record.run_id)


def _with_training_id(job: JobConfiguration, training_id: str) -> JobConfiguration:
    try:
        _TRAINING_ID.validate_python(training_id)
    except ValidationError:
        fault = {"path": "/training_id", "message": "letters, digits, dot, dash and underscore, at most 128"}
        raise InvalidConfiguration(
            f"{training_id[:140]!r} cannot be a training id", remedy="use a plain name or number", errors=[fault]
        ) from None
    if job.training_id is not None and job.training_id != training_id:
        fault = {"path": "/training_id", "message": f"the path says {training_id!r}"}
        raise InvalidConfiguration(
            f"the training ids differ: {training_id!r} in the path, {job.training_id!r} in the body",
            remedy="make them equal or leave out the body's",
            errors=[fault],
        )
    return job.model_copy(update={"training_id": training_id})


def _given_up(deaths: int) -> Failure:
    return Failure(
        kind=FailureKind.CRASHED,
        code=FailureKind.CRASHED.code,
        message=f"the job ended with the whole service {deaths} times without finishing a round",
        remedy="bound the worker's memory (LOCEX_WORKER_MEMORY_MB): the job may take all of the machine's",
    )


def _new_record(training_id: str, configured: Configured, library: str, warnings: list[str]) -> JobRecord:
    now = time.time()
    return JobRecord(
        run_id=f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{os.urandom(3).hex()}",
        training_id=training_id,
        client_type_id=configured.job.client_type_id,
        state=JobState.QUEUED,
        rounds=configured.job.num_rounds,
        created=now,
        updated=now,
        configuration=configured.job.model_dump(mode="json", by_alias=True, exclude_none=True),
        library=library,
        plugins=configured.plugins,
        warnings=warnings,
    )
