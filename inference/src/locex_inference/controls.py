"""Trace and log settings that a client may read and change while the service runs: Triton's extensions.

One `Controls` serves all transports. Values are text in trace settings, as the protocol has them; tracing asks
`Controls.trace_rate` for the share of a model's requests that it records. Log settings act on this package's logger.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from locex_inference.errors import InvalidInference

Trace = dict[str, list[str]]
LogValue = bool | int | str

_TRACE: Trace = {
    "trace_level": ["OFF"],
    "trace_rate": ["1000"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_file": [""],
    "trace_mode": ["opentelemetry"],
}
_FIXED = {"trace_file", "trace_mode"}
_LEVELS = {"OFF", "TIMESTAMPS", "TENSORS"}
_LOG: dict[str, LogValue] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


class Controls:
    """What is traced and logged: defaults, changes for all models, and changes for one."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        """``logger``: whose level follows the log settings; absent: this package's."""
        self._logger = logger or logging.getLogger("locex_inference")
        self._trace: Trace = {}
        self._models: dict[str, Trace] = {}
        self._log = dict(_LOG)

    def trace(self, model: str = "") -> Trace:
        """Return the trace settings of a model, or those of all."""
        return _TRACE | self._trace | self._models.get(model, {})

    def set_trace(self, changes: Mapping[str, Sequence[str] | None], model: str = "") -> Trace:
        """Change trace settings and return all; None: back to the more general value. Raise `InvalidInference`."""
        for name, values in changes.items():
            if values:
                _check_trace(name, values)
            elif name not in _TRACE:
                raise InvalidInference(f"there is no trace setting {name!r}; there are {', '.join(_TRACE)}")
        own = self._models.setdefault(model, {}) if model else self._trace
        for name, values in changes.items():
            own.pop(name, None)
            if values:
                own[name] = list(values)
        return self.trace(model)

    def trace_rate(self, model: str) -> float:
        """Return the share of a model's requests that are traced, 0 to 1."""
        settings = self.trace(model)
        return 0.0 if settings["trace_level"] == ["OFF"] else 1 / int(settings["trace_rate"][0])

    def log(self) -> dict[str, LogValue]:
        """Return the log settings."""
        return dict(self._log)

    def set_log(self, changes: Mapping[str, LogValue]) -> dict[str, LogValue]:
        """Change log settings and return all; raise `InvalidInference`, and change nothing, for one that cannot be."""
        for name, value in changes.items():
            _check_log(name, value)
        self._log.update(changes)
        self._logger.setLevel(self._level() if changes else self._logger.level)
        return self.log()

    def _level(self) -> int:
        if self._log["log_verbose_level"]:
            return logging.DEBUG
        for name, level in (("info", logging.INFO), ("warning", logging.WARNING), ("error", logging.ERROR)):
            if self._log[f"log_{name}"]:
                return level
        return logging.CRITICAL


def _check_trace(name: str, values: Sequence[str]) -> None:
    if name not in _TRACE or name in _FIXED:
        free = [known for known in _TRACE if known not in _FIXED]
        raise InvalidInference(f"the trace setting {name!r} cannot be set; those that can are {', '.join(free)}")
    if name == "trace_level":
        fits = set(values) <= _LEVELS
    else:
        lowest = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}[name]
        fits = len(values) == 1 and _whole(values[0], lowest)
    if not fits:
        raise InvalidInference(f"{list(values)} is no value of the trace setting {name!r}")


def _whole(text: str, lowest: int) -> bool:
    return isinstance(text, str) and text.lstrip("-").isdecimal() and len(text) < 19 and int(text) >= lowest  # noqa: PLR2004


def _check_log(name: str, value: LogValue) -> None:
    known = _LOG.get(name)
    if known is None or name in {"log_file", "log_format"}:
        raise InvalidInference(
            f"the log setting {name!r} cannot be set while the service runs",
            remedy="set log_info, log_warning, log_error or log_verbose_level",
        )
    if type(value) is not type(known) or (isinstance(value, int) and value < 0):
        raise InvalidInference(f"{value!r} is no value of the log setting {name!r}")
