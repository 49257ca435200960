"""Questions that need a plugin or a framework but no job, answered by short-lived processes.

Answers are kept while the question, the plugins and the data folder stay as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

from locex.errors import CrashedPlugin, LocexError
from locex.jobs.questions import Examples, ExamplesQuestion, Question
from locex.jobs.workers import environment_of
from locex.plugins.installed import Installed
from locex.processes.answers import answer_of, short_lived
from locex.processes.child import Child, python
from locex.processes.memory import memory_mb
from locex.schemas.job import DataChoice
from locex.settings import NodeSettings
from locex_server.watching import DataFolder

_PARALLEL = 2  # processes at once; each may import a framework
_WATCH = 0.25  # seconds between looks at a process's memory
_KEPT = 32  # answers


class Inspector:
    """Asks a process of its own each question, within the site's time and a worker's memory."""

    def __init__(self, settings: NodeSettings, installed: Installed, folder: DataFolder) -> None:
        self._settings = settings
        self._installed = installed
        self._folder = folder
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()

    async def ask(self, question: Question, what: str) -> dict[str, Any]:
        """Return the answer; raise the error that the process reports, or `CrashedPlugin` where it ends without."""
        plugins = (await self._installed.catalog()).fingerprint
        state = json.dumps([question.model_dump(mode="json"), plugins, await self._folder.state()])
        if state not in self._kept:
            self._kept[state] = await self._ask(question, what)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(state)
        return self._kept[state]

    async def examples(self, data: DataChoice, seed: int) -> int:
        """Return how many training examples a data source has."""
        answer = await self.ask(ExamplesQuestion(data=data, seed=seed), f"data {data.source}")
        return Examples.model_validate(answer).train

    async def _ask(self, question: Question, what: str) -> dict[str, Any]:
        argv = python("locex.worker.inspect", interpreter=self._settings.worker_python)
        environment = environment_of(self._settings)
        async with self._slots, short_lived(argv, environment=environment) as child, self._bounded(child, what):
            await child.send(question.model_dump(mode="json", by_alias=True))
            answer = await answer_of(child, what, self._settings.inspect_timeout)
        if "error" in answer:
            raise LocexError.from_json(answer["error"])
        return dict(answer["answer"])

    @contextlib.asynccontextmanager
    async def _bounded(self, child: Child, what: str) -> AsyncIterator[None]:
        """End a child beyond the memory of a worker, and say so."""
        limit = self._settings.worker_memory_mb
        watching = asyncio.create_task(_beyond(child, limit)) if limit else None
        try:
            yield
        except CrashedPlugin:
            if watching is not None and watching.done() and limit:
                raise CrashedPlugin(what, f"took more than {limit} MiB of memory and was ended", child.log) from None
            raise
        finally:
            if watching is not None:
                watching.cancel()


async def _beyond(child: Child, limit: int) -> None:
    """Kill the child as soon as it takes more memory than it may; return then."""
    while await asyncio.to_thread(memory_mb, child.pid) <= limit:  # noqa: ASYNC110 -- the system tells in no other way
        await asyncio.sleep(_WATCH)
    child.kill()
