"""One version's way of running: at once in the event loop, gathered into batches, or in threads behind a queue."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections import deque
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Any

from locex_inference.engine.execution import Outcome, execute, execute_remote
from locex_inference.engine.observed import Observed
from locex_inference.engine.signature import Signature
from locex_inference.engine.ticket import Stage, Ticket
from locex_inference.errors import DeadlineExceeded, ModelFailed, Overloaded
from locex_inference.models.version import ModelVersion

IN_LOOP = 300e-6
"""Seconds: what runs shorter runs in the event loop, where a thread would cost 70 to 90 µs more (measured)."""

MOST_OF_A_REQUEST = 4096
"""Examples of one request where the options set no bound: a wide model makes thousands of bytes of each that came."""

MOST_ROWS = 64
"""Examples of one batch that the engine joins where the options set no bound."""


class Room:
    """The bytes of tensors that wait, over all models, and how many there may be."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Lane:
    """Belongs to one version and to the event loop; only `execute` runs elsewhere."""

    def __init__(
        self,
        version: ModelVersion,
        loop: asyncio.AbstractEventLoop,
        threads: Executor,
        room: Room,
        *,
        batching: bool = True,
    ) -> None:
        options = version.options
        self.version = version
        self.observed = Observed(version.statistics)
        self.signature = Signature(
            version.inputs,
            version.outputs,
            max_rows=options.max_batch_size or MOST_OF_A_REQUEST,
            finite=options.nan == "refuse",
        )
        self.batching = batching and version.batching and options.micro_batching != "off" and _joinable(version)
        self.loop_rows = _rows_within(version.costs, IN_LOOP) if version.in_process and self.signature.fixed else 0
        self.most_rows = min(options.max_batch_size or MOST_ROWS, MOST_ROWS)
        self.concurrency = options.concurrency or max(1, (os.cpu_count() or 1) // (options.threads or 1))
        self.waiting = 0
        self._limit = options.queue_limit
        self._loop = loop
        self._threads = threads
        self._room = room
        self._gathered: list[Ticket] = []
        self._queue: deque[Ticket] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[Outcome]] = set()

    def immediate(self, rows: int) -> bool:
        """Whether a request of so many examples is answered before `take` returns."""
        return rows <= self.loop_rows and not self.batching

    def take(self, ticket: Ticket) -> None:
        """Answer the request, now or later; raise `Overloaded` where too many wait."""
        if ticket.rows <= self.loop_rows:
            ticket.version.in_flight += 1
            if not self.batching:
                self._run_here([ticket])
                return
            self._bound()
            self.waiting += 1
            # One turn of the loop: what a poll has brought is gathered, and nobody waits for a timer.
            if not self._gathered:
                self._loop.call_soon(self._flush)
            self._gathered.append(ticket)
            return
        ticket.size = _size(ticket)
        self._bound(ticket.size)
        ticket.version.in_flight += 1
        self.waiting += 1
        self._room.used += ticket.size
        self._queue.append(ticket)
        if ticket.request.deadline is not None:
            ticket.timer = self._loop.call_at(ticket.request.deadline, self._expire, ticket)
        self._pump()

    def forget(self, ticket: Ticket) -> None:
        """Let go of a request that will not run, and of its tensors: they count as waiting no longer."""
        with suppress(ValueError):  # gathered ones are skipped where they stand, until the next turn of the loop
            self._queue.remove(ticket)
        self.waiting -= 1
        self._room.used -= ticket.size
        ticket.version.in_flight -= 1
        if ticket.stage is Stage.GONE:
            self.observed.cancelled += 1
        else:
            self.observed.failed(ticket)

    def _bound(self, size: int = 0) -> None:
        room = self._room
        if room.used and room.used + size > room.limit:
            self.observed.overloaded += 1
            raise Overloaded(
                f"requests of {room.used} bytes wait, and {size} more are more than may",
                remedy="send it again later, or raise LOCEX_MAX_WAITING_MB",
                retry_after=1,
            )
        if self.waiting >= self._limit:
            self.observed.overloaded += 1
            raise Overloaded(
                f"{self.waiting} requests wait for {self.version.name!r}, as many as may",
                remedy="send it again later, or raise the model's queue_limit",
                retry_after=1,
            )

    def _expire(self, ticket: Ticket) -> None:
        ticket.timer = None
        waiting = ticket.stage is Stage.WAITING
        ticket.fail(DeadlineExceeded(f"the request to {self.version.name!r} was not answered in its time"))
        if waiting:
            self.forget(ticket)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        groups: dict[Any, list[Ticket]] = {}
        for ticket in gathered:
            if ticket.stage is Stage.WAITING:
                groups.setdefault(_kind(ticket), []).append(ticket)
        most = min(self.most_rows, self.loop_rows)
        for group in groups.values():
            while group:
                batch = _first(group, most)
                del group[: len(batch)]
                self.waiting -= len(batch)
                self._run_here(batch)

    def _run_here(self, batch: list[Ticket]) -> None:
        for ticket in batch:
            ticket.stage = Stage.RUNNING
        self._end(batch, execute(self.version, batch))

    def _pump(self) -> None:
        while self._running < self.concurrency and (batch := self._next()):
            self._running += 1
            self.waiting -= len(batch)
            for ticket in batch:
                self._room.used -= ticket.size
                ticket.stage = Stage.RUNNING
            if self.version.in_process:
                future: asyncio.Future[Outcome] = self._loop.run_in_executor(
                    self._threads, execute, self.version, batch
                )
            else:
                future = self._loop.create_task(execute_remote(self.version, batch))
            future.add_done_callback(partial(self._finished, batch))

    def _next(self) -> list[Ticket]:
        queue, rows = self._queue, 0
        batch: list[Ticket] = []
        kind: Any = None
        while queue:
            ticket = queue[0]
            if ticket.stage is not Stage.WAITING:
                queue.popleft()
                continue
            if batch and (_kind(ticket) != kind or rows + ticket.rows > self.most_rows):
                break
            batch.append(queue.popleft())
            if not self.batching:
                break
            rows += ticket.rows
            kind = kind or _kind(ticket)
        return batch

    def _finished(self, batch: list[Ticket], future: asyncio.Future[Outcome]) -> None:
        self._running -= 1
        if future.cancelled() or (error := future.exception()) is not None:
            self.version.in_flight -= len(batch)
            reason = "was ended" if future.cancelled() else f"raised {type(error).__name__}"
            for ticket in batch:
                ticket.fail(ModelFailed(f"{self.version.name!r} {reason}"))
        else:
            self._end(batch, future.result())
        self._pump()

    def _end(self, batch: list[Ticket], outcome: Outcome) -> None:
        self.version.in_flight -= len(batch)
        self.observed.executed(batch, outcome)
        for ticket, result in zip(batch, outcome.results, strict=True):
            if isinstance(result, Exception):
                ticket.fail(result)
            else:
                ticket.answer(result)


def _size(ticket: Ticket) -> int:
    """Return the bytes of a request's tensors."""
    return sum(
        array.nbytes if array.dtype.kind != "O" else sum(map(len, array.ravel()))
        for array in ticket.request.inputs.values()
    )


def _joinable(version: ModelVersion) -> bool:
    tensors = (*version.inferencer.inputs, *version.inferencer.outputs)
    return all(info.shape and info.shape[0] < 0 for info in tensors)


def _rows_within(costs: dict[int, float], bound: float) -> int:
    """Return how many examples one call can hold within so many seconds; between measured sizes costs grow evenly."""
    sizes = sorted(size for size, cost in costs.items() if cost <= bound)
    if not sizes:
        return 0
    largest = sizes[-1]
    measured = sorted(costs)
    place = bisect_left(measured, largest) + 1
    if place == len(measured):
        return int(largest * bound / max(costs[largest], 1e-9))
    following = measured[place]
    slope = (costs[following] - costs[largest]) / (following - largest)
    return min(following - 1, largest + int((bound - costs[largest]) / slope)) if slope > 0 else largest


def _kind(ticket: Ticket) -> Any:
    """Return what requests must have in common to be joined."""
    return (ticket.request.outputs, *((name, array.shape[1:]) for name, array in ticket.request.inputs.items()))


def _first(group: list[Ticket], most: int) -> list[Ticket]:
    rows, count = 0, 0
    for ticket in group:
        rows += ticket.rows
        if count and rows > most:
            break
        count += 1
    return group[:count]
