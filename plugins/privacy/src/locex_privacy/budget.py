"""Charges rounds to the privacy ledger, before the data is touched."""

from __future__ import annotations

import logging
from typing import Any

from locex.api import PrivacyContext
from locex.errors import PrivacyRefused
from locex_privacy.accountant import Spent, spent

log = logging.getLogger(__name__)

ATTEMPTS = 100  # a lost race means that another job charged; so many in a row are no coincidence


class Budget:
    """The budget of one unit of privacy of the operator's data set, shared by all jobs through its ledger."""

    def __init__(self, context: PrivacyContext, unit: str, delta: float, max_epsilon: float | None) -> None:
        self._context = context
        self._unit = unit
        self._delta = delta
        self._max_epsilon = max_epsilon

    def charge(self, event: dict[str, Any]) -> None:
        """Append the event to the ledger and report the ε spent with it.

        Raise `PrivacyRefused`, with nothing charged, where ε would pass ``max_epsilon``. A charge is never returned:
        a round that fails afterwards may have shown something all the same.
        """
        ledger = self._context.ledger(self._unit)
        for _ in range(ATTEMPTS):
            version, events = ledger.read()
            after = self._affordable(events, event)
            if ledger.append(version, event):
                self._context.epsilon_spent(self._unit, after.epsilon)
                log.info(
                    "unit %s: ε=%.6g at δ=%g, accountant %s", self._unit, after.epsilon, self._delta, after.accountant
                )
                return
        raise PrivacyRefused(
            f"the privacy ledger of data set {self._context.dataset!r} changed {ATTEMPTS} times while a round was to "
            f"be charged",
            remedy="run fewer jobs on this data set at once",
        )

    def _affordable(self, events: list[dict[str, Any]], event: dict[str, Any]) -> Spent:
        after = spent([*events, event], self._delta)
        if self._max_epsilon is not None and after.epsilon > self._max_epsilon:
            before = spent(events, self._delta).epsilon
            raise PrivacyRefused(
                f"the coming round would raise the ε of data set {self._context.dataset!r} (unit {self._unit}, "
                f"δ={self._delta:g}) from {before:.4g} to {after.epsilon:.4g}, past max_epsilon={self._max_epsilon:g}",
                remedy="train fewer rounds, raise noise_multiplier, or raise max_epsilon if the data's owner agrees",
            )
        return after
