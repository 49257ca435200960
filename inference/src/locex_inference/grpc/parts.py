"""What the methods of a server share."""

from __future__ import annotations

from dataclasses import dataclass, field

from locex_inference.access_log import AccessLog
from locex_inference.controls import Controls
from locex_inference.serving import Serving
from locex_inference.shared_memory import SharedMemory
from locex_inference.tracing import Tracing


@dataclass(slots=True)
class Selection:
    """The model that the older inference services answer with; empty: the only one that is served."""

    model: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """The models, and what both transports share."""

    serving: Serving
    shared_memory: SharedMemory
    controls: Controls = field(default_factory=Controls)
    tracing: Tracing | None = None
    access_log: AccessLog | None = None
    selection: Selection = field(default_factory=Selection)
