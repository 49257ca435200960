"""What must be set before flwr is imported: no phoning home, a writable folder, a quiet log."""

from __future__ import annotations

import logging
import os
from pathlib import Path


def prepare(folder: Path) -> None:
    """Switch off flwr's telemetry and update check and keep its files in ``folder``; flwr reads these at import."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    os.environ["FLWR_HOME"] = str(folder / "flwr")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every poll at INFO


def quiet() -> None:
    """Let flwr's records go the way of all others; it brings a coloured console handler and logs at DEBUG."""
    from flwr.supercore.logger import FLOWER_LOGGER

    FLOWER_LOGGER.handlers.clear()
    FLOWER_LOGGER.setLevel(logging.WARNING)
