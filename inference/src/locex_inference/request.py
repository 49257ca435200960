"""One request for inference and its response, the same on every transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locex.api import Array


@dataclass(slots=True)
class InferRequest:
    """Tensors for a model.

    ``version`` is empty where the caller leaves it to labels and weights; a label counts as a version. ``inputs`` are
    arrays as they were sent, axis of examples included. ``outputs`` are the names wanted, none: all. ``deadline`` is
    a time of the event loop's clock.
    """

    model: str
    inputs: dict[str, Array]
    version: str = ""
    outputs: tuple[str, ...] = ()
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    deadline: float | None = None


@dataclass(slots=True)
class InferResponse:
    """What a version of a model answered, by the names of its outputs."""

    model: str
    version: str
    outputs: dict[str, Array]
    id: str = ""
