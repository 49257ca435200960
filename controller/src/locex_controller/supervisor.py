"""Watches over the process of one training: starts it, keeps its record, and starts it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from locex.errors import LocexError
from locex.processes.answers import answer_of
from locex.processes.child import Child, python
from locex.schemas.record import JobRecord, JobState
from locex.settings import WITHHELD
from locex_controller.records import Records, crash_of, failure_of
from locex_controller.settings import CollectorSettings
from locex_controller.training.spec import TrainingSpec

log = logging.getLogger(__name__)
_PAUSE = 1.0  # seconds before the first restart; doubled each time
_LAST_WRITE = 5.0  # seconds to wait for the store at the end of the service, or of a training
_STATES = {"WAITING": JobState.WAITING, "TRAINING": JobState.TRAINING, "EVALUATING": JobState.EVALUATING}


class Supervisor:
    """One training. ``record`` is always the newest."""

    def __init__(self, record: JobRecord, spec: TrainingSpec, records: Records, settings: CollectorSettings) -> None:
        self.record = record
        self.spec = spec
        self._records = records
        self._settings = settings
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._child.pid if self._child and self._child.exit_code is None else None

    async def begin(self) -> list[str]:
        """Start the process and wait until it listens; return its warnings, or raise the error that it reports."""
        child = await self._spawn()
        names = [self.spec.aggregation.name, *(mechanism.name for mechanism in self.spec.mechanisms)]
        what = f"aggregation {', '.join(names)}"
        message = await answer_of(child, what, self._settings.start_timeout)
        if message.get("kind") != "ready":
            await self._kill(child)
            raise LocexError.from_json(message.get("error", {}))
        return list(message.get("warnings", []))

    def watch(self) -> None:
        """Go on in the background; `begin` has succeeded, or the training is resumed."""
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Ask the training to end, and kill it after the grace.

        Return when its record says so, or, with the store down, after the grace again.
        """
        self._stopping.set()
        if self._child is not None:
            await self._child.send({"kind": "stop"})
        if self._task is not None:
            _, pending = await asyncio.wait([self._task], timeout=self._settings.stop_grace)
            if pending and self._child is not None:
                self._child.kill()
            if pending:
                await asyncio.wait([self._task], timeout=self._settings.stop_grace)

    async def settle(self) -> None:
        """Wait, not for ever, until ``record`` says that the training is over, as the store says already."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_LAST_WRITE)

    async def discard(self) -> None:
        """End the process, whatever it does."""
        if self._child is not None:
            await self._kill(self._child)

    async def interrupt(self) -> None:
        """End the process without a word to its nodes; the training goes on at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.discard()
        if not self.record.state.over:
            with contextlib.suppress(TimeoutError):  # with the store down, the next start finds the training as it was
                async with asyncio.timeout(_LAST_WRITE):
                    await self._enter(JobState.INTERRUPTED, reason="the collector ended")

    async def _watch(self) -> None:
        try:
            await self._supervise()
        except Exception as error:
            log.exception("training %s cannot be followed", self.spec.training_id)
            await self._fail(error)

    async def _fail(self, error: Exception) -> None:
        """End a training that cannot be followed; it holds no place even if that cannot be written."""
        await self.discard()
        told = {"code": "internal", "message": f"{type(error).__name__}: {error}"}
        failure = failure_of(error.to_json() if isinstance(error, LocexError) else told)
        try:
            await self._enter(JobState.FAILED, reason=failure.message, failure=failure)
        except Exception:
            log.exception("the end of training %s cannot be written", self.spec.training_id)
            self.record = self.record.model_copy(update={"state": JobState.FAILED, "failure": failure})

    async def _supervise(self) -> None:
        deaths = 0
        while True:
            round_before = self.record.round
            if await self._follow():
                return
            assert self._child is not None
            code = await self._child.wait()
            deaths = 1 if self.record.round > round_before else deaths + 1
            if self._stopping.is_set():
                await self._enter(JobState.STOPPED)
                return
            if deaths > self._settings.max_restarts:
                failure = crash_of(code, self._child.log, deaths - 1)
                await self._enter(JobState.FAILED, reason=failure.message, failure=failure)
                return
            reason = f"its process ended with exit code {code}"
            await self._enter(JobState.INTERRUPTED, reason=reason, resumes=self.record.resumes + 1)
            if await self._stopped_within(_PAUSE * 2 ** (deaths - 1)):
                await self._enter(JobState.STOPPED)
                return
            await self._spawn()

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def _spawn(self) -> Child:
        argv = python("locex_controller.training", interpreter=self._settings.worker_python)
        self._child = child = await Child.start(argv, environment=WITHHELD)
        child.keep_log(self.spec.folder / "training.log")
        await child.send(self.spec.model_copy(update={"reported": self.record.round}).model_dump(mode="json"))
        self.record = self.record.model_copy(update={"worker": {"pid": child.pid, "identity": child.identity}})
        return child

    async def _follow(self) -> bool:
        """Take the process's messages; tell whether the training is over."""
        child = self._child or await self._spawn()
        if self._stopping.is_set():
            await child.send({"kind": "stop"})
        while (message := await child.receive()) is not None:
            if await self._take(message):
                return True
        return False

    async def _take(self, message: Mapping[str, Any]) -> bool:
        kind = message.get("kind")
        content = {key: value for key, value in message.items() if key != "kind"}
        if kind == "round":
            self.record = await self._records.add_round(self.record, content)
        elif kind == "state":
            await self._enter(_STATES[content.pop("state")])
        elif kind == "ready":
            await self._enter(JobState.WAITING)
        elif kind in {"attempt", "warning"}:
            self.record = await self._records.save(self.record, str(kind), content)
        elif kind in {"finished", "stopped", "failed"}:
            assert self._child is not None
            await self._child.wait()  # so that a training that is over has neither a process nor a port
            await self._end(str(kind), content)
            return True
        return False

    async def _end(self, kind: str, content: Mapping[str, Any]) -> None:
        if kind == "failed":
            failure = failure_of(content["error"])
            await self._enter(JobState.FAILED, reason=failure.message, failure=failure)
        else:
            await self._enter(JobState.FINISHED if kind == "finished" else JobState.STOPPED)

    async def _enter(self, state: JobState, **changes: Any) -> None:
        self.record = await self._records.enter(self.record, state, **changes)

    async def _kill(self, child: Child) -> int:
        child.kill()
        return await child.wait()
