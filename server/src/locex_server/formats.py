"""The format of the site's data: stated by the operator's file, else asked of the data source, and kept."""

from __future__ import annotations

import asyncio

from locex.jobs.questions import FormatQuestion
from locex.jobs.site import data_of, format_of
from locex.schemas.data_format import DataFormat
from locex.settings import NodeSettings
from locex_server.inspector import Inspector


class Formats:
    """What the site states, else what an inspect process finds; callers at the same moment share one process."""

    def __init__(self, settings: NodeSettings, inspector: Inspector) -> None:
        self._settings = settings
        self._inspector = inspector
        self._asking = asyncio.Lock()

    async def current(self) -> DataFormat:
        """Return the format; raise what the source raises."""
        stated = await asyncio.to_thread(format_of, self._settings)
        if stated is not None:
            return stated
        async with self._asking:
            choice = await asyncio.to_thread(data_of, self._settings)
            answer = await self._inspector.ask(FormatQuestion(data=choice), f"data {choice.source}")
            return DataFormat.model_validate(answer)
