"""What transports ask of the serving of models; `locex_inference.service` makes the one that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from locex.api import TensorInfo
from locex_inference.request import InferRequest, InferResponse

NAME = "locex-inference"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "sequence",
    "statistics",
    "system_shared_memory",
    "trace",
    "logging",
)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model's metadata as the protocol tells it: ``versions`` are those that are ready, newest last."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A line of the repository's index. ``state`` is ``READY``, ``LOADING``, ``UNAVAILABLE`` or ``UNLOADING``."""

    name: str
    version: str
    state: str
    reason: str = ""


@dataclass(slots=True)
class Duration:
    """How often something happened, and how long it took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0


@dataclass(slots=True)
class Statistics:
    """What one version did since it was loaded; ``last`` is in milliseconds since 1970, ``batches`` by batch size."""

    name: str
    version: str
    last: int = 0
    inferences: int = 0
    executions: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=dict)


class Serving(Protocol):
    """Models that answer. All of it is called from the event loop; nothing blocks.

    An unknown model or version raises `UnknownServed`, one that is not ready `NotReady`.
    """

    def live(self) -> bool:
        """Return whether the process serves at all."""

    def ready(self) -> bool:
        """Return whether every model that must be served is."""

    def model_ready(self, model: str, version: str = "") -> bool:
        """Return whether a version, or any of a model's, answers."""

    def metadata(self, model: str, version: str = "") -> ServedModel:
        """Return what a model takes and gives."""

    def configuration(self, model: str, version: str = "") -> dict[str, Any]:
        """Return a model's configuration as Triton's clients read it (``max_batch_size``, ``input``, ``output``, …)."""

    def statistics(self, model: str = "", version: str = "") -> Sequence[Statistics]:
        """Return the statistics of a version, of a model's versions, or of all."""

    def index(self, *, ready_only: bool = False) -> Sequence[IndexEntry]:
        """Return every known version of every model."""

    async def load(self, model: str, config: Mapping[str, Any] | None, files: Mapping[str, bytes]) -> None:
        """Load a model, or load it anew; return when it is served. ``files`` are by path within a version."""

    async def unload(self, model: str) -> None:
        """Serve a model no longer; requests under way are answered."""

    def infer_now(self, request: InferRequest) -> InferResponse | None:
        """Answer at once where that is cheaper than waiting (a fast model, nothing in its way); None: `infer`."""

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer a request, or raise an `InferenceError`."""
