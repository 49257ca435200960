"""What Prometheus is told of the jobs that are not over, each under its client's id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from locex.schemas.record import JobRecord, RoundRecord

_LABELS = ("training_id", "client_type_id")


class JobMetrics(Collector):
    """Progress of live jobs; a job that is over leaves no series behind."""

    def __init__(self, live: Callable[[], Sequence[JobRecord]]) -> None:
        """``live`` returns the jobs that are not over."""
        self._live = live

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return gauges of rounds, state, and the metrics and ε of the last round."""
        states = GaugeMetricFamily("locex_job_state", "1 for the state that the job is in.", labels=(*_LABELS, "state"))
        rounds = GaugeMetricFamily("locex_job_round", "Rounds completed.", labels=_LABELS)
        metrics = GaugeMetricFamily(
            "locex_job_metric", "Loss and metrics of the last round.", labels=(*_LABELS, "split", "metric")
        )
        epsilon = GaugeMetricFamily("locex_job_epsilon", "ε spent on the data set.", labels=(*_LABELS, "unit"))
        for record in self._live():
            labels = (record.training_id, record.client_type_id or "")
            states.add_metric((*labels, record.state.value), 1)
            rounds.add_metric(labels, record.round)
            last = record.history[-1] if record.history else RoundRecord(round=0)
            for split, values in (("train", last.train), ("evaluation", last.evaluation)):
                for name, value in values.items():
                    metrics.add_metric((*labels, split, name), value)
            for unit, value in last.epsilon.items():
                epsilon.add_metric((*labels, unit), value)
        yield from (states, rounds, metrics, epsilon)
