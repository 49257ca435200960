"""What one version did, as counters that cost the hot path next to nothing; `locex_inference.metrics` reads them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence

from locex_inference.engine.execution import Outcome
from locex_inference.engine.ticket import Ticket
from locex_inference.serving import Duration, Statistics

BOUNDS = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: upper bounds of the latency histograms' buckets."""

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the batch sizes' buckets."""

_NANOSECONDS = tuple(int(bound * 1e9) for bound in BOUNDS)


class Histogram:
    """Counts by bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def add(self, value: int) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Observed:
    """The histograms of one version, beside its `Statistics`."""

    __slots__ = (
        "batches",
        "cancelled",
        "infer",
        "overloaded",
        "postprocess",
        "preprocess",
        "queue",
        "request",
        "statistics",
    )

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics
        self.request, self.queue = Histogram(_NANOSECONDS), Histogram(_NANOSECONDS)
        self.preprocess, self.infer, self.postprocess = (Histogram(_NANOSECONDS) for _ in range(3))
        self.batches = Histogram(SIZES)
        self.cancelled = 0
        self.overloaded = 0

    def executed(self, batch: Sequence[Ticket], outcome: Outcome) -> None:
        """Count one call of the model and the requests that it answered."""
        statistics = self.statistics
        prepare, infer = outcome.prepared - outcome.began, outcome.inferred - outcome.prepared
        finish = outcome.ended - outcome.inferred
        rows = 0
        for ticket, result in zip(batch, outcome.results, strict=True):
            rows += ticket.rows
            waited, took = outcome.began - ticket.arrived, outcome.ended - ticket.arrived
            self.queue.add(waited)
            self.request.add(took)
            _count(statistics.queue, waited)
            if isinstance(result, Exception):
                _count(statistics.fail, took)
            else:
                statistics.inferences += ticket.rows
                _count(statistics.success, took)
        statistics.executions += 1
        statistics.last = time.time_ns() // 1_000_000
        _count(statistics.compute_input, prepare, len(batch))
        _count(statistics.compute_infer, infer, len(batch))
        _count(statistics.compute_output, finish, len(batch))
        sizes = statistics.batches
        if (known := sizes.get(rows)) is None:
            known = sizes[rows] = Duration()
        _count(known, infer)
        self.preprocess.add(prepare)
        self.infer.add(infer)
        self.postprocess.add(finish)
        self.batches.add(rows)

    def failed(self, ticket: Ticket) -> None:
        """Count a request that ended without a call of the model."""
        _count(self.statistics.fail, time.perf_counter_ns() - ticket.arrived)


def _count(duration: Duration, ns: int, times: int = 1) -> None:
    duration.count += times
    duration.ns += ns
