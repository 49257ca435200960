"""The service: what answers transports (`Serving`), and the order in which its parts begin and end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from locex_inference.configuration import configuration_of
from locex_inference.engine.engine import Engine
from locex_inference.engine.ticket import Done, Ticket
from locex_inference.errors import InferenceError, NotReady
from locex_inference.models.registry import Registry
from locex_inference.models.serving_folder import ModelRepository
from locex_inference.models.version import ModelVersion
from locex_inference.request import InferRequest, InferResponse
from locex_inference.serving import IndexEntry, ServedModel, Statistics

logger = logging.getLogger(__name__)


class Service:
    """Models that answer, on one event loop."""

    def __init__(
        self, registry: Registry, engine: Engine, repository: ModelRepository, required: Sequence[str] = ()
    ) -> None:
        """``engine`` runs what ``registry`` holds; it is not ready without the ``required`` models."""
        self._registry = registry
        self._engine = engine
        self._repository = repository
        self._required = tuple(required)
        self._beginning: asyncio.Task[None] | None = None
        self._begun = False

    def begin(self) -> asyncio.Task[None]:
        """Load the models of the folder, in the background."""
        self._beginning = asyncio.create_task(self._begin())
        return self._beginning

    async def close(self) -> None:
        """End what was begun."""
        if self._beginning is not None:
            self._beginning.cancel()
            await asyncio.gather(self._beginning, return_exceptions=True)

    async def _begin(self) -> None:
        for fault in await self._repository.load_all():
            logger.error("%s%s", fault.message, f" ({fault.remedy})" if fault.remedy else "")
        self._begun = True
        logger.info("models are loaded: %s", ", ".join(sorted(each.name for each in self.versions())) or "none")

    async def check(self) -> None:
        """Raise `NotReady` while a model that must be served is not."""
        if not self.ready():
            raise NotReady("models are not ready")

    def live(self) -> bool:
        """Return whether the process serves at all."""
        return True

    def ready(self) -> bool:
        """Return whether every model that must be served is."""
        return self._begun and all(map(self._answers, self._required))

    def model_ready(self, model: str, version: str = "") -> bool:
        """Return whether a version, or any of a model's, answers."""
        if not version:
            self._registry.choose(model)
        return any(not each.fault for each in self._chosen(model, version))

    def metadata(self, model: str, version: str = "") -> ServedModel:
        """Return what a model takes and gives."""
        chosen = self._registry.choose(model, version)
        ready = tuple(each.version for each in self._chosen(model, version))
        return ServedModel(chosen.name, ready, chosen.platform, chosen.inputs, chosen.outputs)

    def configuration(self, model: str, version: str = "") -> dict[str, Any]:
        """Return a model's configuration as Triton's clients read it."""
        return configuration_of(self._registry.choose(model, version))

    def statistics(self, model: str = "", version: str = "") -> Sequence[Statistics]:
        """Return the statistics of a version, of a model's versions, or of all."""
        found = self._chosen(model, version) if model else tuple(self.versions())
        return [each.statistics for each in found]

    def index(self, *, ready_only: bool = False) -> Sequence[IndexEntry]:
        """Return every known version of every model."""
        return [entry for entry in self._registry.index() if not ready_only or entry.state == "READY"]

    async def load(self, model: str, config: Mapping[str, Any] | None, files: Mapping[str, bytes]) -> None:
        """Load a model, or load it anew; return when it is served."""
        await self._repository.load(model, config, files)

    async def unload(self, model: str) -> None:
        """Serve a model no longer; requests under way are answered."""
        await self._registry.unload(model)

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer a request, or raise an `InferenceError`."""
        return await self._engine.infer(request)

    def infer_now(self, request: InferRequest) -> InferResponse | None:
        """Answer at once where that is cheaper than waiting; None: `infer`."""
        return self._engine.infer_now(request)

    def submit(self, request: InferRequest, done: Done) -> Ticket:
        """Take a request without a task for it."""
        return self._engine.submit(request, done)

    def versions(self) -> Iterator[ModelVersion]:
        """Return every version that is loaded."""
        for model in self._registry.models():
            yield from self._registry.versions(model)

    def _answers(self, model: str) -> bool:
        try:
            return self.model_ready(model)
        except InferenceError:
            return False

    def _chosen(self, model: str, version: str) -> tuple[ModelVersion, ...]:
        """Return one version, or all of a model; raise `UnknownServed`."""
        if version:
            return (self._registry.choose(model, version),)
        return self._registry.versions(model)
