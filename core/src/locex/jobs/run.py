"""One run: a worker is driven from its configuration to the end, and replaced when it dies between rounds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from locex.errors import LocexError
from locex.jobs import messages as m
from locex.jobs.checkpoints import Checkpoints
from locex.jobs.registry import Registry, persist
from locex.jobs.repository import Models
from locex.jobs.results import keep_model
from locex.jobs.workers import Worker
from locex.processes.memory import memory_mb
from locex.schemas.job import JobConfiguration, Resources
from locex.schemas.model import ModelMetadata
from locex.schemas.record import Failure, FailureKind, JobRecord, JobState, RoundRecord
from locex.settings import NodeSettings
from locex.store.protocol import Store

log = logging.getLogger(__name__)
_WATCH = 1.0  # seconds between looks at a worker's memory
_ROUNDS = {JobState.WAITING, JobState.TRAINING, JobState.EVALUATING}


class Run:
    """Drives one run, with the worker that configured it at its submission, or those that ``start_worker`` gives."""

    def __init__(
        self,
        run_id: str,
        worker: Worker | None,
        *,
        settings: NodeSettings,
        store: Store,
        registry: Registry,
        models: Models,
        checkpoints: Checkpoints,
        start_worker: Callable[[JobRecord], Awaitable[Worker]],
    ) -> None:
        self.run_id = run_id
        self._settings = settings
        self._store = store
        self._registry = registry
        self._models = models
        self._checkpoints = checkpoints
        self._start_worker = start_worker
        self._worker = worker
        self._stopping = asyncio.Event()
        self._beginning: asyncio.Task[None] | None = None
        self._killed_for: FailureKind | None = None
        self._deadline, self._round_timeout = math.inf, math.inf

    async def go(self) -> None:
        """Run to the end; a claim that fails (the run was stopped meanwhile) ends it at once."""
        try:
            while await self._registry.claim(self.run_id):
                try:
                    await self._once()
                except LocexError as error:
                    await self._fail(FailureKind.RAISED, error)
                except Exception as error:
                    log.exception("run %s met a fault of the service", self.run_id)
                    await self._fail(FailureKind.RAISED, LocexError(f"{type(error).__name__}: {error}", remedy=_FAULT))
                finally:
                    await self._end_worker()
                    await self._clear()
                if not await self._goes_on():
                    return
        finally:
            await self._end_worker()

    async def stop(self) -> None:
        """Ask the worker to leave the federation; it is killed if it does not within the grace."""
        self._stopping.set()
        worker = self._worker
        if worker is None:
            return
        if self._beginning is not None:  # the model is on its way; the worker has nothing to leave yet
            self._beginning.cancel()
            return
        await worker.send(m.Stop())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_grace):
                await worker.child.exited()
        worker.child.kill()

    async def abandon(self) -> None:
        """Kill the worker because the service ends; the run is interrupted."""
        await self._end_worker()

    async def keep_checkpoint(self) -> None:
        """Have what the worker kept copied, if it kept anything yet."""
        folder = self.folder / "checkpoint"
        if self._checkpoints.wanted and await asyncio.to_thread((folder / "current").exists):
            self._checkpoints.keep(self.run_id, folder)

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self._settings.state_folder / "runs" / self.run_id

    async def _once(self) -> None:
        record = await self._registry.get(self.run_id)
        self._worker = worker = self._worker or await self._start_worker(record)
        self._deadline = math.inf
        await asyncio.to_thread(self.folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        worker.child.keep_log(self.folder / "worker.log")
        await self._registry.change(
            self.run_id,
            "worker",
            {"pid": worker.child.pid},
            worker={"pid": worker.child.pid, "identity": worker.child.identity},
            started=record.started or time.time(),
        )
        if self._stopping.is_set():
            await self._registry.enter(self.run_id, JobState.STOPPED)
            return
        await self._registry.enter(self.run_id, JobState.PREPARING)
        job = JobConfiguration.model_validate(record.configuration)
        self._beginning = asyncio.create_task(self._begin(worker, record, job))
        try:
            await self._beginning
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            await self._registry.enter(self.run_id, JobState.STOPPED)
            return
        finally:
            self._beginning = None
        self._deadline = time.monotonic() + self._settings.prepare_timeout
        self._round_timeout = job.resources.round_timeout or math.inf
        watch = asyncio.create_task(self._watch(worker, job.resources))
        try:
            await self._listen(worker)
        finally:
            watch.cancel()

    async def _begin(self, worker: Worker, record: JobRecord, job: JobConfiguration) -> None:
        metadata = await persist(lambda: self._models.metadata(job.model_name, job.model_version))
        stored = await persist(lambda: self._models.fetch(metadata))
        digest = record.artefact or str(stored.digest)
        path = await persist(lambda: self._store.blob_path(digest))
        if path is None:
            raise LocexError(
                f"the model {job.model_name} {job.model_version} was replaced while the job trained it",
                code="model-changed",
                remedy="post the job again; give a changed model a version of its own",
            )
        if record.artefact is None:
            await self._registry.change(self.run_id, "model", {"digest": digest}, artefact=digest)
        if record.resumes:
            await self._restore_checkpoint(record)
        await worker.send(
            m.Begin(
                run_id=self.run_id,
                folder=str(self.folder),
                artefact=str(path),
                digest=digest,
                metadata=ModelMetadata.model_validate(stored.model_dump()),
                models=await persist(self._models.versions),
                resume=record.resumes > 0,
            )
        )

    async def _restore_checkpoint(self, record: JobRecord) -> None:
        restored = await self._checkpoints.restore(self.run_id, self.folder / "checkpoint")
        if restored is not None and restored < record.round:
            await self._warn(f"the stored checkpoint is that of round {restored}, and {record.round} were done")

    async def _listen(self, worker: Worker) -> None:
        """Handle the worker's messages until it ends."""
        last: m.FromWorker | None = None
        while True:
            try:
                async with asyncio.timeout(self._settings.heartbeat_timeout):
                    message = await worker.receive_any()
            except TimeoutError:
                self._killed_for = FailureKind.TIMED_OUT
                worker.child.kill()
                message = None
            if message is None:
                break
            if not isinstance(message, m.Heartbeat):
                last = message
                with self._standing_still():
                    await self._handle(worker, message)
            if isinstance(message, m.StateChanged):
                waiting = message.state is JobState.WAITING
                self._deadline = math.inf if waiting else time.monotonic() + self._round_timeout
            if isinstance(message, m.Finished | m.Failed | m.Left):
                return
        await self._died(worker, last)

    async def _handle(self, worker: Worker, message: m.FromWorker) -> None:
        match message:
            case m.StateChanged():
                await self._registry.enter(self.run_id, message.state, reason=message.reason)
            case m.RoundFinished():
                await self._round(message)
            case m.RoundModel():
                await self._round_model(message)
            case m.Warned():
                await self._warn(message.text)
            case m.LedgerRead() | m.LedgerAppend():
                await worker.send(await self._ledger(message))
            case m.Finished():
                await self._finish(message)
            case m.Failed():
                await self._fail(message.failure, LocexError.from_json(message.error))
            case m.Left():
                await self._registry.enter(self.run_id, JobState.STOPPED)
            case _:
                log.warning("the worker of run %s sent an unexpected %s", self.run_id, message.kind)

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        """While the service waits for the store it reads no messages: the worker's deadline passes no further."""
        left = self._deadline - time.monotonic()
        self._deadline = math.inf
        yield
        self._deadline = time.monotonic() + left

    async def _round(self, message: m.RoundFinished) -> None:
        record = await self._registry.get(self.run_id)
        history = _with_round(record.history, message.record)
        await self._registry.change(
            self.run_id,
            "round",
            message.record.model_dump(mode="json", exclude_none=True) | {"rounds": message.rounds},
            history=history,
            round=_completed(history),
            rounds=message.rounds,
            deaths=0,
        )
        await self.keep_checkpoint()

    async def _round_model(self, message: m.RoundModel) -> None:
        record = await self._registry.get(self.run_id)
        files = [Path(path) for path in message.files]
        await persist(lambda: keep_model(self._store, record, files, message.pipeline, interim=message.round))
        await asyncio.to_thread(shutil.rmtree, self.folder / "rounds" / str(message.round), ignore_errors=True)

    async def _warn(self, text: str) -> None:
        record = await self._registry.get(self.run_id)
        await self._registry.change(self.run_id, "warning", {"text": text}, warnings=[*record.warnings, text])

    async def _ledger(self, message: m.LedgerRead | m.LedgerAppend) -> m.LedgerAnswer:
        try:
            if isinstance(message, m.LedgerRead):
                version, events = await persist(lambda: self._store.read_ledger(message.dataset, message.unit))
                return m.LedgerAnswer(version=version, events=events)
            charge = (message.dataset, message.unit, message.version, message.event)
            granted = await persist(lambda: self._store.append_ledger(*charge))
            return m.LedgerAnswer(granted=granted)
        except LocexError as error:
            return m.LedgerAnswer(error=error.to_json())

    async def _finish(self, message: m.Finished) -> None:
        record = await self._registry.get(self.run_id)
        files = [Path(path) for path in message.files]
        model = await persist(lambda: keep_model(self._store, record, files, message.pipeline))
        if message.ended_early:
            await self._warn(f"the server ended the training after round {record.round} of {record.rounds}")
        await self._registry.enter(self.run_id, JobState.FINISHED, model=model)

    async def _fail(self, kind: FailureKind, error: LocexError, **details: Any) -> None:
        failure = Failure(kind=kind, code=error.error_code, message=error.message, remedy=error.remedy, **details)
        if not details and self._worker is not None:
            failure.log = self._worker.child.log
        await self._registry.enter(self.run_id, JobState.FAILED, reason=error.message, failure=failure)

    async def _died(self, worker: Worker, last: m.FromWorker | None) -> None:
        """Decide what the end of a worker means that did not say how it ended."""
        code = await worker.child.wait()
        record = await self._registry.get(self.run_id)
        if self._stopping.is_set():
            await self._registry.enter(self.run_id, JobState.STOPPED, reason="the worker was killed")
            return
        kind = self._killed_for or FailureKind.CRASHED
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        survivable = kind is FailureKind.CRASHED and record.state in _ROUNDS
        if survivable and record.deaths < self._settings.max_resumes:
            reason = f"the worker ended with {how}"
            await self._registry.enter(self.run_id, JobState.INTERRUPTED, reason=reason, deaths=record.deaths + 1)
            return
        where = f" after {last.kind}" if last is not None else ""
        error = LocexError(
            f"the worker {kind.value} ({how}) in {record.state.value}{where}", code=kind.code, remedy=_REMEDIES[kind]
        )
        await self._fail(kind, error, exit_code=code, log=worker.child.log)

    async def _goes_on(self) -> bool:
        """After an interruption that the service survived, queue the run again."""
        record = await self._registry.get(self.run_id)
        if record.state is not JobState.INTERRUPTED:
            return False
        if self._stopping.is_set():
            await self._registry.enter(self.run_id, JobState.STOPPED)
            return False
        await self._registry.enter(self.run_id, JobState.QUEUED, resumes=record.resumes + 1)
        return True

    async def _watch(self, worker: Worker, resources: Resources) -> None:
        """Kill the worker when its group takes more memory, or what it does more time, than it may."""
        limits = [limit for limit in (resources.memory_mb, self._settings.worker_memory_mb) if limit]
        while True:
            await asyncio.sleep(_WATCH)
            if limits and await asyncio.to_thread(memory_mb, worker.child.pid) > min(limits):
                self._killed_for = FailureKind.OUT_OF_MEMORY
            elif time.monotonic() > self._deadline:
                self._killed_for = FailureKind.TIMED_OUT
            else:
                continue
            worker.child.kill()
            return

    async def _end_worker(self) -> None:
        if self._worker is not None:
            await self._worker.end()  # cancelled in the midst of it, `abandon` ends it
            self._worker = None

    async def _clear(self) -> None:
        """Of a run that is over, keep only its log: the model is in the store."""
        if (await self._registry.get(self.run_id)).state.over:
            self._checkpoints.drop(self.run_id)
            for name in ("checkpoint", "checkpoint.part", "model", "rounds", "federation"):
                await asyncio.to_thread(shutil.rmtree, self.folder / name, ignore_errors=True)


_REMEDIES = {
    FailureKind.CRASHED: "read the log above; a plugin or a library ended the process: try `locex plugins check NAME`",
    FailureKind.TIMED_OUT: "raise resources.round_timeout for a round, LOCEX_PREPARE_TIMEOUT before the first one, or "
    "LOCEX_HEARTBEAT_TIMEOUT if the machine was only busy",
    FailureKind.OUT_OF_MEMORY: "raise resources.memory_mb or LOCEX_WORKER_MEMORY_MB, or use smaller batches",
}
_FAULT = "see the service's log; the disk may be full, or the worker's locex-core another version than the service's"


def _with_round(history: list[RoundRecord], news: RoundRecord) -> list[RoundRecord]:
    """Return the history with what is new of a round; a replaced worker does not know what the former one told."""
    known = next((one for one in history if one.round == news.round), RoundRecord(round=news.round))
    told = {name: value for name in RoundRecord.model_fields if (value := getattr(news, name)) not in (None, {})}
    others = [one for one in history if one.round != news.round]
    return sorted([*others, known.model_copy(update=told)], key=lambda one: one.round)


def _completed(history: list[RoundRecord]) -> int:
    return max((known.round for known in history if known.fit_seconds is not None), default=0)
