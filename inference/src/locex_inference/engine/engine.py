"""Admission: from a request to the lane of the version that answers it."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from locex_inference.engine.lane import Lane, Room
from locex_inference.engine.ticket import Done, Ticket
from locex_inference.errors import DeadlineExceeded, NotReady
from locex_inference.models.registry import Registry
from locex_inference.models.version import ModelVersion
from locex_inference.request import InferRequest, InferResponse

THREADS = 32
"""Most calls that run at once over all models; each model has its own bound."""


class Engine:
    """Answers requests with the registry's models. Belongs to one event loop."""

    def __init__(self, registry: Registry, *, batching: bool = True, waiting_bytes: int = 1 << 29) -> None:
        """``batching`` lets models join requests, as their options and the probe at their loading say.

        ``waiting_bytes`` bounds the tensors that wait, over all models.
        """
        self.registry = registry
        self._batching = batching
        self._room = Room(waiting_bytes)
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(min(THREADS, 4 * (os.cpu_count() or 1)), "inference")

    def close(self) -> None:
        """Let go of the threads; calls under way end first."""
        self._threads.shutdown()

    def submit(self, request: InferRequest, done: Done) -> Ticket:
        """Take a request; ``done`` is called with its ticket, perhaps before this returns.

        Raise `InvalidInference`, `UnknownServed`, `NotReady`, `Overloaded` or `DeadlineExceeded` where it is not taken.
        """
        arrived = time.perf_counter_ns()
        version = self.registry.choose(request.model, request.version)
        lane = self._admit(version, request)
        ticket = Ticket(request, version, lane.signature.check(request.inputs, request.outputs), arrived, done)
        lane.take(ticket)
        return ticket

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer a request; where the caller is cancelled it does not run."""
        future: asyncio.Future[None] = self._loop.create_future()
        ticket = self.submit(request, partial(_wake, future))
        if not future.done():
            try:
                await future
            except asyncio.CancelledError:
                ticket.cancel()
                raise
        return ticket.result()

    def infer_now(self, request: InferRequest) -> InferResponse | None:
        """Answer where the model runs in the loop and nothing is gathered; None: `infer`."""
        version = self.registry.choose(request.model, request.version)
        lane = self._admit(version, request)
        if lane.batching or not lane.loop_rows:
            return None
        rows = lane.signature.check(request.inputs, request.outputs)
        if not lane.immediate(rows):
            return None
        ticket = Ticket(request, version, rows, time.perf_counter_ns(), _ignore)
        lane.take(ticket)
        return ticket.result()

    def lane(self, version: ModelVersion) -> Lane:
        """Return the lane of a version."""
        lane = version.lane
        if lane is None:
            lane = version.lane = Lane(version, self._loop, self._threads, self._room, batching=self._batching)
        assert isinstance(lane, Lane)
        return lane

    def _admit(self, version: ModelVersion, request: InferRequest) -> Lane:
        lane = self.lane(version)
        if version.fault:
            raise NotReady(f"{version.name!r} version {version.version!r} does not answer: {version.fault}")
        now = self._loop.time()
        if request.deadline is None:
            if (timeout := version.options.timeout) is not None:
                request.deadline = now + timeout
        elif request.deadline <= now:
            raise DeadlineExceeded(f"the time of the request to {version.name!r} was over when it arrived")
        return lane


def _wake(future: asyncio.Future[None], _ticket: Ticket) -> None:
    if not future.done():
        future.set_result(None)


def _ignore(_ticket: Ticket) -> None:
    """Take nothing from a ticket whose result is read right after."""
