"""The guard before a swap: a new version is evaluated beside the served one, in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from locex.errors import LocexError
from locex.processes.answers import answer_of, short_lived
from locex.processes.child import python
from locex.schemas.model import ModelMetadata
from locex.settings import WITHHELD
from locex_inference.following.errors import VersionRefused
from locex_inference.following.question import Evaluation
from locex_inference.following.settings import FollowSettings
from locex_inference.following.verdict import Report, refusal
from locex_inference.inferencers.question import Question


class Guard:
    """Asks one process at a time; what crashes, hangs or takes too much memory there is the candidate's refusal."""

    def __init__(self, settings: FollowSettings, *, interpreter: str | None = None) -> None:
        """``interpreter`` runs plugins; None: ours."""
        self._settings = settings
        self._interpreter = interpreter
        self._one = asyncio.Lock()

    async def examine(
        self,
        metadata: ModelMetadata,
        candidate: Question,
        served: Question | None,
        configuration: Mapping[str, Any] | None,
    ) -> Report | None:
        """Return what was found of a version that may serve, None where the guard is off; else raise `VersionRefused`.

        ``configuration`` is that of the job that trained the candidate.
        """
        settings = self._settings
        if settings.guard == "off":
            return None
        asked = Evaluation(
            metadata=metadata,
            candidate=candidate,
            served=served,
            configuration=dict(configuration) if configuration is not None else None,
            examples=settings.guard_examples,
            memory_mb=settings.guard_memory_mb,
        )
        report = await self._ask(asked)
        reason = refusal(report, margin=settings.guard_margin, required=settings.guard == "required")
        if reason:
            raise VersionRefused(reason, remedy="the served version stays; train again, or load this one by hand")
        return report

    async def _ask(self, asked: Evaluation) -> Report:
        argv = python("locex_inference.following.evaluation", interpreter=self._interpreter)
        what = f"the evaluation of {asked.metadata.model_name} {asked.metadata.model_version}"
        async with self._one, short_lived(argv, environment=WITHHELD | {"LOCEX_NODE_TOKEN_FILE": None}) as child:
            await child.send(asked.model_dump(mode="json", by_alias=True))
            try:
                answer = await answer_of(child, what, self._settings.guard_timeout)
            except LocexError as error:
                raise VersionRefused(error.message) from None
        if "error" in answer:
            told = LocexError.from_json(answer["error"])
            raise VersionRefused(told.message, remedy=told.remedy)
        return Report.model_validate(answer["answer"])
