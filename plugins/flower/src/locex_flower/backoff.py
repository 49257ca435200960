"""Waiting for a federation that cannot be reached: growing delays with jitter, bounded by the node's patience."""

from __future__ import annotations

import math
import random
import threading
import time

from locex.api import Participant, Stopped
from locex.errors import FederationLost
from locex_flower.settings import ConnectionConfig

SLICE = 0.1
"""Seconds after which a sleeping node looks whether it was stopped."""


class ConnectionLost(Exception):
    """The server cannot be reached or has dropped this node; the text says why."""


class Backoff:
    """Delays between tries. Progress resets both the delay and the patience."""

    def __init__(self, participant: Participant, address: str, config: ConnectionConfig, patience: float) -> None:
        """``patience``: seconds without progress after which `wait` raises `FederationLost`."""
        self._participant = participant
        self._address = address
        self._config = config
        self._patience = patience
        self._delay = config.backoff_initial
        self._lost_since: float | None = None
        self._waiting = threading.Lock()

    @property
    def lost(self) -> bool:
        """Whether the last thing that happened was a failure."""
        return self._lost_since is not None

    @property
    def lost_for(self) -> float:
        """Seconds since the first failure after the last progress; 0 without one."""
        return 0.0 if self._lost_since is None else time.monotonic() - self._lost_since

    def progress(self) -> None:
        """Forget earlier failures."""
        self._delay = self._config.backoff_initial
        self._lost_since = None

    def wait(self, reason: str, longest: float = math.inf) -> None:
        """Sleep before the next try, at most ``longest`` seconds; threads that fail together share one wait."""
        if self._waiting.acquire(blocking=False):
            try:
                self._wait(reason, longest)
            finally:
                self._waiting.release()
        else:
            with self._waiting:
                return

    def sleep(self, seconds: float) -> None:
        """Sleep; raise `Stopped` soon after the job is stopped."""
        until = time.monotonic() + seconds
        while True:
            if self._participant.stopping:
                raise Stopped
            if (left := until - time.monotonic()) <= 0:
                return
            time.sleep(min(left, SLICE))

    def _wait(self, reason: str, longest: float) -> None:
        now = time.monotonic()
        self._lost_since = now if self._lost_since is None else self._lost_since
        left = self._patience - (now - self._lost_since)
        if left <= 0:
            raise FederationLost(
                f"the federation at {self._address} could not be reached for {self._patience:g} s: {reason}",
                remedy="check that the collector runs, the job's server_address and federation, TLS and firewalls",
            )
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 -- spreads the nodes' tries, no secret
        delay = min(self._delay * jitter, left, longest)
        self._delay = min(self._delay * 2, self._config.backoff_max)
        self._participant.waiting(f"retrying in {delay:.1f} s: {reason}")
        self.sleep(delay)
