"""Prometheus metrics: of requests and of the process, and those that a service adds to ``Metrics.registry``."""

from __future__ import annotations

import time
from http import HTTPMethod

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from locex.web.lookup import route_of
from locex.web.routes import Routes

METHODS = frozenset(HTTPMethod)


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = Counter(
            "http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.duration = Histogram(
            "http_request_duration_seconds",
            "Time to answer; event streams are left out.",
            ("method", "route"),
            registry=self.registry,
        )


METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)

routes = Routes()


@routes.get("/metrics", tag="service", produces="text/plain")
async def get_metrics(request: web.Request) -> web.Response:
    """Return metrics in Prometheus' text format."""
    content = generate_latest(request.app[METRICS].registry)
    return web.Response(body=content, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


@web.middleware
async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time a request under its route's template, so that no caller can add label values."""
    begin = time.perf_counter()
    response = await handler(request)
    metrics = request.app[METRICS]
    route = route_of(request)
    template = route.path if route else "unknown"
    method = request.method if request.method in METHODS else "other"
    metrics.requests.labels(method, template, response.status).inc()
    if response.content_type != "text/event-stream":
        metrics.duration.labels(method, template).observe(time.perf_counter() - begin)
    return response
