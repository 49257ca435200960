"""A request on its way through the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from locex_inference.models.version import ModelVersion
from locex_inference.request import InferRequest, InferResponse

if TYPE_CHECKING:
    from locex.api import Array

Done = Callable[["Ticket"], None]


class Stage(IntEnum):
    """Where a ticket stands."""

    WAITING = 0
    RUNNING = 1
    ANSWERED = 2
    GONE = 3
    """Nobody waits for the reply."""


class Ticket:
    """One request and who is to be told; ``response`` or ``error`` is set when ``done`` is called, once."""

    __slots__ = (
        "arrived",
        "done",
        "error",
        "inputs",
        "request",
        "response",
        "rows",
        "size",
        "stage",
        "timer",
        "values",
        "version",
    )

    def __init__(self, request: InferRequest, version: ModelVersion, rows: int, arrived: int, done: Done) -> None:
        """``arrived`` is `time.perf_counter_ns` at its arrival; ``done`` is called in the event loop."""
        self.request = request
        self.version = version
        self.rows = rows
        self.size = 0
        self.arrived = arrived
        self.done = done
        self.inputs: dict[str, Array] = request.inputs
        self.values: dict[str, Any] = {}
        self.stage = Stage.WAITING
        self.response: InferResponse | None = None
        self.error: Exception | None = None
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Nobody waits any longer: a request that does not run yet never will."""
        lane = self.version.lane
        if self.stage < Stage.ANSWERED:
            waiting, self.stage = self.stage is Stage.WAITING, Stage.GONE
            if self.timer is not None:  # it would hold the request until the deadline, which may be in a year
                self.timer.cancel()
                self.timer = None
            if waiting:
                lane.forget(self)

    def answer(self, outputs: dict[str, Array]) -> None:
        """Tell the reply, where somebody waits for it."""
        if self.stage < Stage.ANSWERED:
            version = self.version
            self.response = InferResponse(version.name, version.version, outputs, self.request.id)
            self._end()

    def fail(self, error: Exception) -> None:
        """Tell an error, where somebody waits."""
        if self.stage < Stage.ANSWERED:
            self.error = error
            self._end()

    def result(self) -> InferResponse:
        """Return the reply or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.response is not None
        return self.response

    def _end(self) -> None:
        self.stage = Stage.ANSWERED
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.done(self)
