"""The format of the site's data: stated by the operator's file, else asked of the data source, and kept."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from locex.errors import CrashedPlugin, LocexError
from locex.jobs.site import data_of, format_of
from locex.jobs.workers import environment_of
from locex.processes.child import Child, python
from locex.schemas.data_format import DataFormat
from locex.settings import NodeSettings

_PATIENCE = 60.0  # seconds; a folder of many images takes time to look at


class Formats:
    """Answers from a short-lived inspect process, again when the data folder's files change."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._asking = asyncio.Lock()
        self._known: tuple[Any, DataFormat] | None = None

    async def current(self) -> DataFormat:
        """Return the format; raise what the source raises."""
        stated = await asyncio.to_thread(format_of, self._settings)
        if stated is not None:
            return stated
        async with self._asking:
            choice = await asyncio.to_thread(data_of, self._settings)
            content = choice.model_dump(mode="json")
            state = (content, await asyncio.to_thread(_state, self._settings.data_folder))
            if self._known is None or self._known[0] != state:
                self._known = state, await self._ask(content)
            return self._known[1]

    async def _ask(self, choice: dict[str, Any]) -> DataFormat:
        argv = python("locex.worker.inspect", interpreter=self._settings.worker_python)
        child = await Child.start(argv, environment=environment_of(self._settings))
        try:
            await child.send(choice)
            async with asyncio.timeout(_PATIENCE):
                answer = await child.receive()
        except TimeoutError:
            raise CrashedPlugin(f"data {choice['source']}", f"did not end within {_PATIENCE:g} s", child.log) from None
        finally:
            child.kill()
            code = await child.wait()
        if answer is None:
            raise CrashedPlugin(f"data {choice['source']}", f"ended the process with exit code {code}", child.log)
        if "error" in answer:
            raise LocexError.from_json(answer["error"])
        return DataFormat.model_validate(answer["format"])


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when files of the data folder do; folders count by their own time."""
    try:
        entries = sorted(folder.iterdir())
        return tuple((entry.name, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in entries)
    except OSError:
        return ()
