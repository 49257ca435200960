"""One version of a model, loaded and ready: what a request takes a reference to, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from locex.api import Inferencer, TensorInfo
from locex_inference.models.options import ModelOptions
from locex_inference.serving import Statistics

if TYPE_CHECKING:
    from locex.api import Array

Pipeline: TypeAlias = "Callable[[dict[str, Array], dict[str, Any]], dict[str, Array]]"
"""Steps on a request's tensors. The second argument are the request's own values, which steps share: one empty
dictionary per request, given to the preprocessing and then to the postprocessing."""


@runtime_checkable
class RemoteInferencer(Inferencer, Protocol):
    """An inferencer in a process of its own; `run` blocks the calling thread, `arun` does not block the event loop."""

    async def arun(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs; raise `ModelFailed` when the process failed, `NotReady` while it is restarted."""


@dataclass(slots=True, eq=False)
class ModelVersion:
    """A loaded version, immutable apart from its counters.

    ``inputs`` and ``outputs`` are what callers see, pipelines included. Where ``in_process`` is False the inferencer
    is a `RemoteInferencer`. ``costs`` are seconds per call by batch size, as the warm-up measured them; ``batching``
    says whether requests may be joined along the first axis. ``in_flight`` counts the references that requests hold:
    the engine counts up when it takes one, before preprocessing, and down when the reply is made. ``lane`` is the
    engine's own, ``release`` is called when the version is closed.
    """

    name: str
    version: str
    digest: str
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    inferencer: Inferencer
    options: ModelOptions
    statistics: Statistics
    in_process: bool = True
    preprocess: Pipeline | None = None
    postprocess: Pipeline | None = None
    costs: dict[int, float] = field(default_factory=dict)
    batching: bool = False
    in_flight: int = 0
    lane: Any = None
    release: Callable[[], None] | None = None

    def close(self) -> None:
        """Let go of the model, from another thread than the event loop's; no call follows."""
        try:
            self.inferencer.close()
        finally:
            if self.release is not None:
                self.release()

    @property
    def fault(self) -> str:
        """Why the version does not answer at present: its process is being restarted, say."""
        return str(getattr(self.inferencer, "fault", ""))
