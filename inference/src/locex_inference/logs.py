"""The protocol's log settings, as Triton names them, over Python's logging."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from locex_inference.errors import InvalidInference

_SWITCHES = ("log_info", "log_warning", "log_error")
_FIXED = {"log_file": "", "log_format": "default"}


class LogSettings:
    """Which levels are logged. ``log_verbose_level`` above 0 logs everything; file and format are the operator's."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        """Begin with what the logger (default: this package's) does now."""
        self._logger = logger or logging.getLogger("locex_inference")
        level = self._logger.getEffectiveLevel()
        self._values: dict[str, Any] = {
            **_FIXED,
            "log_info": level <= logging.INFO,
            "log_warning": level <= logging.WARNING,
            "log_error": level <= logging.ERROR,
            "log_verbose_level": 1 if level <= logging.DEBUG else 0,
        }

    def get(self) -> dict[str, str | bool | int]:
        """Return all settings."""
        return dict(self._values)

    def update(self, given: Mapping[str, Any]) -> dict[str, str | bool | int]:
        """Change settings and return all; raise `InvalidInference` for those that are none or cannot be changed."""
        for name, value in given.items():
            _check(name, value)
        self._values.update(given)
        self._logger.setLevel(self._level())
        return self.get()

    def _level(self) -> int:
        if self._values["log_verbose_level"]:
            return logging.DEBUG
        levels = zip(_SWITCHES, (logging.INFO, logging.WARNING, logging.ERROR), strict=True)
        return next((level for name, level in levels if self._values[name]), logging.CRITICAL)


def _check(name: str, value: Any) -> None:
    if name in _SWITCHES:
        if not isinstance(value, bool):
            raise InvalidInference(f"{name} is true or false, not {value!r}")
    elif name == "log_verbose_level":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InvalidInference(f"{name} is a whole number from 0 on, not {value!r}")
    elif name not in _FIXED:
        raise InvalidInference(f"there is no log setting {name!r}")
    elif value != _FIXED[name]:
        raise InvalidInference(f"{name} cannot be changed over the network")
