"""Traces: the protocol's trace settings, and spans of OpenTelemetry where its API is installed and tracing is on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from locex_inference.errors import InvalidInference

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

DEFAULTS: dict[str, list[str]] = {
    "trace_level": ["TIMESTAMPS"],
    "trace_rate": ["1"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_file": [""],
    "trace_mode": ["opentelemetry"],
}
"""As Triton names them. ``trace_level`` OFF: none; ``trace_rate`` n: one request in n; ``trace_count``: -1, all."""

_NUMBERS = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}
_LEVELS = {"OFF", "TIMESTAMPS"}
_FIXED = {"trace_file", "trace_mode", "log_frequency"}


class TraceSettings:
    """What is traced: in general, and for models that have settings of their own."""

    def __init__(self) -> None:
        self._general = {name: list(values) for name, values in DEFAULTS.items()}
        self._models: dict[str, dict[str, list[str]]] = {}
        self._seen: dict[str, itertools.count[int]] = {}
        self._left: dict[str, int] = {}

    def get(self, model: str = "") -> dict[str, str | list[str]]:
        """Return settings as the protocol writes them: the level is a list, the rest are texts."""
        merged = self._general | self._models.get(model, {})
        return {name: values if name == "trace_level" else values[0] for name, values in merged.items()}

    def update(self, given: Mapping[str, Any], model: str = "") -> dict[str, str | list[str]]:
        """Change settings and return all; null takes back to the general ones. Raise `InvalidInference`."""
        changes = {name: None if value is None else _checked(name, value) for name, value in given.items()}
        target = self._models.setdefault(model, {}) if model else self._general
        for name, values in changes.items():
            if values is not None:
                target[name] = values
            elif model:
                target.pop(name, None)
            else:
                target[name] = list(DEFAULTS[name])
        self._left.clear()
        return self.get(model)

    def wanted(self, model: str) -> bool:
        """Return whether this request of a model is one to trace."""
        own = self._models.get(model, {})
        level = own.get("trace_level") or self._general["trace_level"]
        if "TIMESTAMPS" not in level:
            return False
        rate = int((own.get("trace_rate") or self._general["trace_rate"])[0])
        if next(self._seen.setdefault(model, itertools.count())) % rate:
            return False
        left = self._left.setdefault(model, int((own.get("trace_count") or self._general["trace_count"])[0]))
        if left > 0:
            self._left[model] = left - 1
        return left != 0


def _checked(name: str, value: Any) -> list[str]:
    if name not in DEFAULTS:
        raise InvalidInference(f"there is no trace setting {name!r}; there are {', '.join(DEFAULTS)}")
    values = [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]
    if name == "trace_level":
        if not values or not set(values) <= _LEVELS:
            raise InvalidInference(f"trace_level takes {', '.join(sorted(_LEVELS))}, not {values}")
    elif len(values) != 1:
        raise InvalidInference(f"{name} takes one value, {len(values)} came")
    elif name in _NUMBERS:
        _check_number(name, values[0])
    if name in _FIXED and values != DEFAULTS[name]:
        raise InvalidInference(f"{name} cannot be changed: spans go where OpenTelemetry's settings say")
    return values


def _check_number(name: str, text: str) -> None:
    least = _NUMBERS[name]
    if not (text.removeprefix("-").isdigit() and text.isascii() and len(text) < 10 and int(text) >= least):  # noqa: PLR2004 -- fits 32 bits
        raise InvalidInference(f"{name} takes whole numbers from {least} on, not {text!r}")


class Tracing:
    """Spans of requests. Without OpenTelemetry, or where tracing is off, nothing happens."""

    def __init__(self, settings: TraceSettings, *, on: bool) -> None:
        """Take the tracer that OpenTelemetry's own settings (``OTEL_…``) make."""
        self.settings = settings
        self._tracer = _tracer() if on else None

    @property
    def on(self) -> bool:
        """Whether spans are made at all."""
        return self._tracer is not None

    @contextmanager
    def span(self, name: str, model: str, headers: Mapping[str, str]) -> Iterator[Span | None]:
        """Span what happens within, as a child of the caller's ``traceparent`` (W3C Trace Context)."""
        if self._tracer is None or not self.settings.wanted(model):
            yield None
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        context = extract(headers)
        attributes = {"locex.model": model}
        with self._tracer.start_as_current_span(name, context, SpanKind.SERVER, attributes) as span:
            yield span


def _tracer() -> Tracer | None:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer("locex_inference")
