"""A ledger that weighs another unit's events too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from locex.api import Ledger, PrivacyContext


def with_events_of(context: PrivacyContext, unit: str, other: str) -> PrivacyContext:
    """Return the context with the events of ``other`` in the ledger of ``unit``; only ``unit`` is ever charged."""

    def ledger(asked: str) -> Ledger:
        return _Joint(context.ledger(unit), context.ledger(other)) if asked == unit else context.ledger(asked)

    return replace(context, ledger=ledger)


class _Joint:
    """One ledger's events and another's together; charges go to the first."""

    def __init__(self, own: Ledger, other: Ledger) -> None:
        self._own = own
        self._other = other
        self._seen = 0

    def read(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the own ledger's version, and the events of both."""
        version, events = self._own.read()
        self._seen, others = self._other.read()
        return version, [*others, *events]

    def append(self, version: int, event: dict[str, Any]) -> bool:
        """Charge the event; False also where the other ledger changed meanwhile.

        No charge spans two ledgers. So one that another job overtook stays and is made again: too much is charged
        in that case, never too little.
        """
        return self._own.append(version, event) and self._other.read()[0] == self._seen
