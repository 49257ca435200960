"""The service: what answers transports (`Serving`), and the order in which its parts begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from locex_inference.configuration import configuration_of
from locex_inference.engine.engine import Engine
from locex_inference.engine.ticket import Done, Ticket
from locex_inference.models.registry import Registry
from locex_inference.models.version import ModelVersion
from locex_inference.request import InferRequest
from locex_inference.serving import IndexEntry, ServedModel, Statistics


class Service:
    """Models that answer, on one event loop."""

    def __init__(self, registry: Registry, engine: Engine) -> None:
        """``engine`` runs what ``registry`` holds."""
        self._registry = registry
        self._engine = engine
        self.infer = engine.infer
        self.infer_now = engine.infer_now
        self.started = False

    def live(self) -> bool:
        """Return whether the process serves at all."""
        return True

    def ready(self) -> bool:
        """Return whether every model that must be served is."""
        return self.started

    def model_ready(self, model: str, version: str = "") -> bool:
        """Return whether a version, or any of a model's, answers."""
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

    def submit(self, request: InferRequest, done: Done) -> Ticket:
        """Take a request without a task for it."""
        return self._engine.submit(request, done)

    def versions(self) -> Iterator[ModelVersion]:
        """Return every version that is loaded."""
        for model in self._registry.models():
            yield from self._registry.versions(model)

    def _chosen(self, model: str, version: str) -> tuple[ModelVersion, ...]:
        """Return one version, or all of a model; raise `UnknownServed`."""
        if version:
            return (self._registry.choose(model, version),)
        return self._registry.versions(model)
