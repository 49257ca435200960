"""The access log: one JSON object a line for each request, or for a part of them."""

from __future__ import annotations

import logging
import random

import orjson

logger = logging.getLogger("locex.access")

_FAILED = 500


class AccessLog:
    """Writes to the logger ``locex.access``. Failures of the service are always written unless the log is off."""

    def __init__(self, share: float) -> None:
        """``share`` of the requests is written: 0 turns the log off, 1 writes all."""
        self._share = share
        self.on = share > 0

    def write(
        self, *, transport: str, method: str, path: str, status: int | str, seconds: float, remote: str, **more: object
    ) -> None:
        """Write a request, if it is one of those to write; ``more`` are model, version, bytes and the like."""
        failed = isinstance(status, int) and status >= _FAILED
        if not self.on or (not failed and self._share < 1 and random.random() >= self._share):  # noqa: S311 -- a sample
            return
        entry = {
            "transport": transport,
            "method": method,
            "path": path,
            "status": status,
            "ms": round(seconds * 1000, 3),
            "remote": remote,
        }
        logger.info("%s", orjson.dumps(entry | more).decode())
