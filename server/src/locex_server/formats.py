"""The format of the site's data: stated by the operator's file, else asked of the data source, and kept."""

from __future__ import annotations

import asyncio
from typing import Any

from locex.jobs.questions import FormatQuestion
from locex.jobs.site import data_of, format_of
from locex.plugins.installed import Installed
from locex.schemas.data_format import DataFormat
from locex.settings import NodeSettings
from locex_server.inspector import Inspector
from locex_server.watching import DataFolder


class Formats:
    """Answers from an inspect process, again when the data folder, the choice of source or a plugin changes."""

    def __init__(self, settings: NodeSettings, inspector: Inspector, folder: DataFolder, installed: Installed) -> None:
        self._settings = settings
        self._inspector = inspector
        self._folder = folder
        self._installed = installed
        self._asking = asyncio.Lock()
        self._known: tuple[Any, DataFormat] | None = None

    async def current(self) -> DataFormat:
        """Return the format; raise what the source raises."""
        stated = await asyncio.to_thread(format_of, self._settings)
        if stated is not None:
            return stated
        async with self._asking:
            choice = await asyncio.to_thread(data_of, self._settings)
            question = FormatQuestion(data=choice)
            plugins = (await self._installed.catalog()).fingerprint
            state = (question.model_dump(mode="json"), plugins, await self._folder.state())
            if self._known is None or self._known[0] != state:
                answer = await self._inspector.ask(question, f"data {choice.source}")
                self._known = state, DataFormat.model_validate(answer)
            return self._known[1]
