"""Worker processes as the service sees them: typed messages, deadlines, and a spare one started ahead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pydantic import BaseModel

from locex import machine
from locex.errors import CrashedPlugin, LocexError
from locex.jobs.messages import Configure, Configured, FromWorker, Heartbeat, Ready, Refused, as_json, from_worker
from locex.processes.answers import answer_of
from locex.processes.child import Child, python
from locex.schemas.job import JobConfiguration
from locex.settings import WITHHELD, NodeSettings, worker_environment

_START_TIMEOUT = 60  # seconds; a loaded machine may take long to start Python


class Worker:
    """One worker process."""

    def __init__(self, child: Child) -> None:
        self.child = child

    @classmethod
    async def start(cls, settings: NodeSettings) -> Worker:
        """Start a worker and wait until it is ready."""
        argv = python("locex.worker", interpreter=settings.worker_python)
        worker = cls(await Child.start(argv, environment=environment_of(settings)))
        async with worker.ended_unless_done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_TIMEOUT):
                    if isinstance(await worker.receive(), Ready):
                        return worker
            worker.child.kill()
            code = await worker.child.wait()
            raise CrashedPlugin("a worker", f"failed with exit code {code}", worker.child.log)
        raise AssertionError

    @contextlib.asynccontextmanager
    async def ended_unless_done(self) -> AsyncIterator[None]:
        """End the worker when the block does not end well; also when it is cancelled."""
        try:
            yield
        except BaseException:
            await self.end()
            raise

    async def send(self, message: BaseModel) -> None:
        """Send a message."""
        await self.child.send(as_json(message))

    async def receive_any(self) -> FromWorker | None:
        """Return the next message, heartbeats too, or None when the worker is gone."""
        content = await self.child.receive()
        return None if content is None else from_worker(content)

    async def receive(self) -> FromWorker | None:
        """Return the next message that is no heartbeat, or None when the worker is gone."""
        while isinstance(message := await self.receive_any(), Heartbeat):
            pass
        return message

    async def configure(self, job: JobConfiguration, library: str, *, patience: float, names: str) -> Configured:
        """Let the worker load and configure a job's plugins; raise what is wrong with the job or its plugins."""
        async with self.ended_unless_done():
            await self.send(Configure(job=job, library=library))
            answer = from_worker(await answer_of(self.child, names, patience))
            if isinstance(answer, Refused):
                raise LocexError.from_json(answer.error)
            if isinstance(answer, Configured):
                return answer
            raise TypeError(f"the worker answered {answer.kind}")
        raise AssertionError

    async def end(self) -> None:
        """Kill the worker and wait for it."""
        self.child.kill()
        await self.child.wait()


class Spare:
    """Keeps a worker started ahead, and replaces it when the installed plugins change."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._ready: tuple[str, asyncio.Task[Worker]] | None = None

    def prepare(self, fingerprint: str) -> None:
        """Start the spare in the background, if the site keeps one and none is there."""
        if self._settings.spare_worker and self._ready is None:
            self._ready = fingerprint, asyncio.create_task(Worker.start(self._settings))

    async def take(self, fingerprint: str) -> Worker:
        """Return the spare if it is alive and was started with the same plugins installed, else a new worker."""
        ready, self._ready = self._ready, None
        if ready is not None:
            known, starting = ready
            worker = None
            with contextlib.suppress(CrashedPlugin):
                worker = await starting
            if worker and known == fingerprint and worker.child.exit_code is None:
                return worker
            if worker:
                await worker.end()
        return await Worker.start(self._settings)

    async def close(self) -> None:
        """End the spare."""
        if self._ready is not None:
            with contextlib.suppress(CrashedPlugin):
                await (await self._ready[1]).end()
            self._ready = None


def environment_of(settings: NodeSettings) -> dict[str, str | None]:
    """Return what changes in the worker's environment: its share of the cores, the site's settings as they are.

    Thread pools are fixed at start: TensorFlow's cannot change later. What may hold a password is kept from plugins.
    """
    threads = str(settings.threads or max(1, machine.cores() // settings.max_jobs))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "LOCEX_THREADS")
    environment: dict[str, str | None] = dict.fromkeys(names, threads)
    environment |= worker_environment(settings) | WITHHELD
    environment |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return environment
