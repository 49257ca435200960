"""Prometheus metrics of models, made from the engine's counters when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from locex_inference.engine.lane import Lane
from locex_inference.engine.observed import BOUNDS, SIZES, Histogram
from locex_inference.models.registry import Registry

LABELS = ("model", "version")
PHASES = ("queue", "preprocess", "infer", "postprocess")


class ModelMetrics(Collector):
    """Reads the counters of the versions that are loaded; those of a version end with it, totals go on."""

    def __init__(self, models: Registry, registry: CollectorRegistry) -> None:
        """``models`` are read; their metrics appear in ``registry``."""
        self._models = models
        registry.register(self)

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Return nothing, so that registering asks for no values."""
        return ()

    def collect(
        self,
    ) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | SummaryMetricFamily]:
        """Return the metrics as they are now."""
        models = self._models
        versions = [version for model in models.models() for version in models.versions(model)]
        lanes = [version.lane for version in versions if isinstance(version.lane, Lane)]
        yield _counted("locex_inference_loads", "Versions that were to be loaded.", "outcome", models.loads)
        yield _counted("locex_inference_swaps", "Changes of a model's stable version.", "model", models.swaps)
        yield _requests(lanes)
        yield _examples(lanes)
        yield _gauge("locex_inference_waiting", "Requests that wait.", lanes, lambda lane: lane.waiting)
        yield _gauge(
            "locex_inference_in_flight", "Requests that are taken.", lanes, lambda lane: lane.version.in_flight
        )
        yield _histogram(
            "locex_inference_request_seconds", "From arrival to reply.", lanes, lambda lane: lane.observed.request
        )
        yield _phases(lanes)
        yield _batches(lanes)
        yield from _predecessor(lanes)


def _counted(name: str, text: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family


def _key(lane: Lane) -> tuple[str, str]:
    return lane.version.name, lane.version.version


def _requests(lanes: list[Lane]) -> CounterMetricFamily:
    family = CounterMetricFamily("locex_inference_requests", "Requests by outcome.", labels=(*LABELS, "outcome"))
    for lane in lanes:
        statistics = lane.observed.statistics
        family.add_metric((*_key(lane), "success"), statistics.success.count)
        family.add_metric((*_key(lane), "failure"), statistics.fail.count)
        family.add_metric((*_key(lane), "cancelled"), lane.observed.cancelled)
        family.add_metric((*_key(lane), "overloaded"), lane.observed.overloaded)
    return family


def _examples(lanes: list[Lane]) -> CounterMetricFamily:
    family = CounterMetricFamily("locex_inference_examples", "Examples that were answered.", labels=LABELS)
    for lane in lanes:
        family.add_metric(_key(lane), lane.observed.statistics.inferences)
    return family


def _gauge(name: str, text: str, lanes: list[Lane], value: Callable[[Lane], int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=LABELS)
    for lane in lanes:
        family.add_metric(_key(lane), value(lane))
    return family


def _histogram(name: str, text: str, lanes: list[Lane], of: Callable[[Lane], Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=LABELS)
    for lane in lanes:
        histogram = of(lane)
        family.add_metric(_key(lane), _buckets(histogram, BOUNDS), histogram.total / 1e9)
    return family


def _phases(lanes: list[Lane]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "locex_inference_phase_seconds",
        "Time by phase: queue per request, the others per call of the model.",
        labels=(*LABELS, "phase"),
    )
    for lane in lanes:
        for phase in PHASES:
            histogram: Histogram = getattr(lane.observed, phase)
            family.add_metric((*_key(lane), phase), _buckets(histogram, BOUNDS), histogram.total / 1e9)
    return family


def _batches(lanes: list[Lane]) -> HistogramMetricFamily:
    family = HistogramMetricFamily("locex_inference_batch_size", "Examples of one call of the model.", labels=LABELS)
    for lane in lanes:
        histogram = lane.observed.batches
        family.add_metric(_key(lane), _buckets(histogram, SIZES), histogram.total)
    return family


def _buckets(histogram: Histogram, bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*map(float, bounds), float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    return buckets


def _predecessor(lanes: list[Lane]) -> Iterator[SummaryMetricFamily]:
    """Return the metrics of the older inference application by its names, over all models."""
    told = {
        "inference_request_processing_seconds": ("Time of the model.", "infer"),
        "inference_request_latency_seconds": ("From arrival to reply.", "request"),
        "tflite_inference_pipeline_preparation_seconds": ("Time of preprocessing.", "preprocess"),
    }
    for name, (text, attribute) in told.items():
        histograms: list[Histogram] = [getattr(lane.observed, attribute) for lane in lanes]
        count = sum(sum(histogram.counts) for histogram in histograms)
        yield SummaryMetricFamily(name, text, count, sum(histogram.total for histogram in histograms) / 1e9)
