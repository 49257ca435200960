"""Configurations and metrics as both wires carry them: flat maps of scalars."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from locex.api import Participant, Scalar

log = logging.getLogger(__name__)

INT64 = 2**63


def fit_configuration(received: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the scalars of a configuration; ``server-round`` is also found as ``server_round``, and so on.

    Flower's Message API writes names with dashes, its classic strategies with underscores.
    """
    config = scalars(received)
    for key, value in list(config.items()):
        config.setdefault(key.replace("-", "_"), value)
    return config


def beyond(participant: Participant, received: Mapping[str, Any]) -> bool:
    """Tell whether a request to train asks for more rounds than this node takes part in.

    A server may repeat the last round, however late; only where it does not number them is a complete node's part over.
    """
    server_round = fit_configuration(received).get("server_round")
    if isinstance(server_round, int):
        return participant.rounds is not None and server_round > participant.rounds
    return participant.complete


def scalars(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return what both wires can carry, NumPy scalars as Python's; the rest is left out and logged."""
    kept: dict[str, Scalar] = {}
    for key, value in values.items():
        scalar = value.item() if isinstance(value, np.generic) else value
        if _fits(scalar):
            kept[key] = scalar
        else:
            log.debug("%s is left out: %s is no scalar of the wire", key, type(value).__name__)
    return kept


def _fits(value: object) -> bool:
    if isinstance(value, int):
        return -INT64 <= value < INT64
    return isinstance(value, float | str | bytes)
