"""The privacy ledger, asked of the service, which grants charges atomically across all jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from locex.errors import LocexError
from locex.jobs.messages import LedgerAnswer, LedgerAppend, LedgerRead


class ServiceLedger:
    """Implements `locex.api.Ledger` for one data set and unit of privacy."""

    def __init__(self, dataset: str, unit: str, ask: Callable[[BaseModel], LedgerAnswer]) -> None:
        self._dataset = dataset
        self._unit = unit
        self._ask = ask

    def read(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the version and every event charged so far."""
        answer = self._answer(LedgerRead(dataset=self._dataset, unit=self._unit))
        return answer.version, answer.events

    def append(self, version: int, event: dict[str, Any]) -> bool:
        """Charge an event if the version is still current."""
        message = LedgerAppend(dataset=self._dataset, unit=self._unit, version=version, event=event)
        return self._answer(message).granted

    def _answer(self, message: BaseModel) -> LedgerAnswer:
        answer = self._ask(message)
        if answer.error is not None:
            raise LocexError.from_json(answer.error)
        return answer
