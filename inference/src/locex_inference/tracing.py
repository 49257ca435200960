"""Spans of requests with OpenTelemetry, where its API is installed and tracing is on; else next to no cost."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from locex_inference.controls import Controls

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer


class Tracing:
    """Makes one span for a request, as the trace settings of its model say; it is a child of the caller's span."""

    def __init__(self, controls: Controls, *, on: bool) -> None:
        """``on`` asks for OpenTelemetry, whose own settings (``OTEL_…``) say where spans go."""
        self._controls = controls
        self._tracer = _tracer() if on else None
        self._seen: dict[str, itertools.count[int]] = {}
        self.on = self._tracer is not None
        """Whether `begin` may return a span."""

    def begin(self, name: str, model: str, headers: Mapping[str, str]) -> Span | None:
        """Begin a span; ``headers`` may hold ``traceparent`` (W3C Trace Context), in lower case."""
        if self._tracer is None or not self._wanted(model):
            return None
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        attributes = {"locex.model": model}
        return self._tracer.start_span(name, extract(headers), SpanKind.SERVER, attributes)

    def _wanted(self, model: str) -> bool:
        rate = self._controls.trace_rate(model)
        return rate > 0 and next(self._seen.setdefault(model, itertools.count())) % round(1 / rate) == 0


def end(span: Span | None, error: BaseException | None = None, **attributes: Any) -> None:
    """End a span with what became of the request."""
    if span is None:
        return
    for name, value in attributes.items():
        span.set_attribute(f"locex.{name}", value)
    if error is not None:
        from opentelemetry.trace import StatusCode

        span.set_status(StatusCode.ERROR, str(error))
        span.set_attribute("error.type", getattr(error, "error_code", type(error).__name__))
    span.end()


def _tracer() -> Tracer | None:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer("locex_inference")
